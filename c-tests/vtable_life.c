/* The life of a backend: open, close, destroy; being the default; what its other slots decide. */
#include "fake_backend.h"
#include "gate.h"

/* ---- open and close ---- */

TEST(open_hears_what_the_scope_asked_for) {
    struct fake fake = FAKE;
    pb_scope scope = 0;
    fake_register(&fake);
    CHECK_OK(pb_push_backend("fake", 7, 3, "key=value;other=1", &scope));
    CHECK_INT(7, fake.open_n_jobs);
    CHECK_INT(3, fake.open_inner);
    CHECK_STR("key=value;other=1", fake.params);
    CHECK_OK(pb_pop_backend(scope));
    CHECK_OK(pb_push_backend("fake", -2, 0, NULL, &scope));
    CHECK_INT(-2, fake.open_n_jobs);
    CHECK_INT(0, fake.open_inner);
    CHECK_INT(0, fake.had_params);
    CHECK_OK(pb_pop_backend(scope));
    CHECK_OK(pb_push_backend("fake", 0, 0, NULL, &scope));
    CHECK_INT(-1, fake.open_n_jobs); /* all, as a named backend without a number has it */
    fake_end(scope);
}

TEST(each_session_is_closed_once) {
    struct fake fake = FAKE;
    fake_register(&fake);
    const pb_scope outer = fake_push(2), inner = fake_push(2);
    check_map_works();
    check_map_works();
    CHECK_STR("oo", fake.log);
    CHECK_OK(pb_pop_backend(inner));
    CHECK_STR("ooc", fake.log);
    check_map_works();
    fake_end(outer);
    CHECK_STR("ooccd", fake.log);
}

TEST(a_session_that_no_scope_opened_is_opened_by_the_first_map) {
    struct fake fake = FAKE;
    const pb_backend_vtable vtable = fake_vtable();
    CHECK_OK(pb_register_backend("fake", &vtable, &fake, PB_BACKEND_MAKE_DEFAULT));
    CHECK_STR("", fake.log);
    check_map_works();
    check_map_works();
    CHECK_STR("o", fake.log);
    CHECK_OK(pb_shutdown());
    CHECK_STR("oc", fake.log);
    check_map_works();
    CHECK_OK(pb_unregister_backend("fake"));
    CHECK_STR("ococd", fake.log);
}

static void check_open_error(pb_status status, const char *says, pb_status expected, const char *text) {
    struct fake fake = FAKE;
    pb_scope scope = 0;
    fake.open_status = status;
    fake.open_text = says;
    fake_register(&fake);
    CHECK_STATUS(pb_push_backend("fake", 2, 0, NULL, &scope), expected);
    CHECK_TEXT("backend 'fake': its open");
    CHECK_TEXT(text);
    CHECK_INT(0, scope);
    CHECK_STR("threading", pb_current_backend());
    CHECK_STATUS(pb_set_default_backend("fake", 2, 0, NULL), expected);
    CHECK_STR("threading", pb_current_backend());
    CHECK_OK(pb_unregister_backend("fake"));
    CHECK_STR("d", fake.log); /* what was not opened is not closed */
}

TEST(an_open_that_fails_opens_no_scope) {
    check_open_error(PB_ERR_BACKEND_UNAVAILABLE, "no cluster: start one with 'sched'",
                     PB_ERR_BACKEND_UNAVAILABLE, "no cluster: start one with 'sched'");
    check_open_error(PB_ERR_IO, NULL, PB_ERR_IO, "returned PB_ERR_IO (-12) without a text");
    check_open_error(PB_ERR_IO, "", PB_ERR_IO, "without a text");
    check_open_error(-999, NULL, PB_ERR_INTERNAL, "-999");
    check_open_error(PB_DONE, NULL, PB_ERR_INTERNAL, "PB_DONE (2)");
}

TEST(an_open_that_fails_is_the_error_of_the_map_that_needed_it) {
    struct fake fake = FAKE;
    int32_t count = 0;
    const pb_backend_vtable vtable = fake_vtable();
    fake.open_status = PB_ERR_BACKEND_UNAVAILABLE;
    fake.open_text = "no cluster";
    CHECK_OK(pb_register_backend("fake", &vtable, &fake, PB_BACKEND_MAKE_DEFAULT));
    CHECK_STATUS(count_map(10, &count), PB_ERR_BACKEND_UNAVAILABLE);
    CHECK_TEXT("no cluster");
    CHECK_INT(PB_ERR_BACKEND_UNAVAILABLE, pb_effective_n_jobs(0));
    fake.open_status = PB_OK; /* it is asked again */
    check_map_works();
    CHECK_OK(pb_unregister_backend("fake"));
    CHECK_STR("ocd", fake.log);
}

/* ---- unregister ---- */

TEST(what_is_not_there_or_built_in_cannot_be_unregistered) {
    CHECK_STATUS(pb_unregister_backend("nobody"), PB_ERR_UNKNOWN_BACKEND);
    CHECK_TEXT("'nobody'");
    CHECK_TEXT("sequential, threading");
    CHECK_STATUS(pb_unregister_backend("threading"), PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("built in");
    CHECK_STATUS(pb_unregister_backend("sequential"), PB_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(pb_unregister_backend(NULL), PB_ERR_INVALID_ARGUMENT);
    check_map_works();
}

TEST(an_open_scope_keeps_an_unregistered_backend) {
    struct fake fake = FAKE;
    pb_scope other = 0;
    fake_register(&fake);
    const pb_scope scope = fake_push(2);
    CHECK_OK(pb_unregister_backend("fake"));
    CHECK_STATUS(pb_push_backend("fake", 2, 0, NULL, &other), PB_ERR_UNKNOWN_BACKEND);
    CHECK_STATUS(pb_unregister_backend("fake"), PB_ERR_UNKNOWN_BACKEND);
    CHECK_STR("fake", pb_current_backend());
    check_map_works();
    CHECK_STR("o", fake.log);
    CHECK_OK(pb_pop_backend(scope));
    CHECK_STR("ocd", fake.log);
}

TEST(a_captured_context_keeps_it_too) {
    struct fake fake = FAKE;
    fake_register(&fake);
    pb_scope scope = fake_push(2);
    pb_context *context = pb_context_capture();
    fake_end(scope);
    CHECK_OK(pb_context_attach(context, &scope));
    check_map_works();
    CHECK_OK(pb_pop_backend(scope));
    CHECK_STR("o", fake.log);
    pb_context_free(context);
    CHECK_STR("ocd", fake.log);
}

struct meeting {
    struct gate inside, go_on;
};

static int32_t meet(void *ctx, size_t index, const void *input, void *output) {
    struct meeting *m = ctx;
    (void)index, (void)input, (void)output;
    gate_open(&m->inside);
    gate_wait(&m->go_on);
    return 0;
}

static void *map_meeting(void *meeting) {
    CHECK_STR("fake", pb_current_backend());
    CHECK_OK(pb_parallel_map(meet, meeting, 10, NULL, 0, NULL, 0, NULL));
    CHECK_STR("threading", pb_current_backend()); /* the default ended meanwhile */
    return NULL;
}

TEST(a_map_that_runs_keeps_it_too) {
    struct fake fake = FAKE;
    struct meeting m = {GATE_CLOSED, GATE_CLOSED};
    const pb_backend_vtable vtable = fake_vtable();
    pthread_t thread;
    CHECK_OK(pb_register_backend("fake", &vtable, &fake, PB_BACKEND_MAKE_DEFAULT));
    CHECK(pthread_create(&thread, NULL, map_meeting, &m) == 0);
    gate_wait(&m.inside);
    CHECK_OK(pb_unregister_backend("fake"));
    CHECK_STR("threading", pb_current_backend());
    CHECK_STR("o", fake.log);
    gate_open(&m.go_on);
    pthread_join(thread, NULL);
    CHECK_STR("ocd", fake.log);
}

/* When a submitted job is known to be over, it holds its backend no more. */
TEST(a_submitted_job_keeps_it_until_it_is_over) {
    struct fake fake = FAKE;
    struct meeting m = {GATE_CLOSED, GATE_CLOSED};
    pb_job *job = NULL;
    fake_register(&fake);
    const pb_scope scope = fake_push(2);
    CHECK_OK(pb_submit_map(meet, &m, 10, NULL, 0, NULL, 0, NULL, &job));
    fake_end(scope);
    gate_wait(&m.inside);
    CHECK_STR("o", fake.log);
    gate_open(&m.go_on);
    CHECK_OK(pb_job_wait(job, -1));
    CHECK_STR("ocd", fake.log);
    pb_job_free(job);
}

/* ---- the default ---- */

TEST(a_backend_can_make_itself_the_default_while_it_is_registered) {
    struct fake fake = FAKE;
    const pb_backend_vtable vtable = fake_vtable();
    CHECK_OK(pb_register_backend("fake", &vtable, &fake, 0));
    CHECK_STR("threading", pb_current_backend());
    CHECK_OK(pb_unregister_backend("fake"));
    CHECK_OK(pb_register_backend("fake", &vtable, &fake, PB_BACKEND_MAKE_DEFAULT));
    CHECK_STR("fake", pb_current_backend());
    pb_scope scope = 0;
    CHECK_OK(pb_push_backend("sequential", 0, 0, NULL, &scope)); /* a scope counts more */
    CHECK_STR("sequential", pb_current_backend());
    CHECK_OK(pb_pop_backend(scope));
    CHECK_OK(pb_unregister_backend("fake"));
    CHECK_STR("threading", pb_current_backend());
    check_map_works();
    CHECK_INT(0, fake.runs);
}

TEST(unregistering_ends_a_default_that_was_set_by_name) {
    struct fake fake = FAKE;
    fake_register(&fake);
    CHECK_OK(pb_set_default_backend("fake", 2, 0, NULL));
    check_map_works();
    CHECK_INT(1, fake.runs);
    CHECK_OK(pb_unregister_backend("fake"));
    CHECK_STR("ocd", fake.log);
    CHECK_STR("threading", pb_current_backend());
    CHECK_OK(pb_set_default_backend(NULL, 0, 0, NULL));
}

int main(void) {
    RUN(open_hears_what_the_scope_asked_for);
    RUN(each_session_is_closed_once);
    RUN(a_session_that_no_scope_opened_is_opened_by_the_first_map);
    RUN(an_open_that_fails_opens_no_scope);
    RUN(an_open_that_fails_is_the_error_of_the_map_that_needed_it);
    RUN(what_is_not_there_or_built_in_cannot_be_unregistered);
    RUN(an_open_scope_keeps_an_unregistered_backend);
    RUN(a_captured_context_keeps_it_too);
    RUN(a_map_that_runs_keeps_it_too);
    RUN(a_submitted_job_keeps_it_until_it_is_over);
    RUN(a_backend_can_make_itself_the_default_while_it_is_registered);
    RUN(unregistering_ends_a_default_that_was_set_by_name);
    CHECK_OK(pb_shutdown());
    return check_result();
}
