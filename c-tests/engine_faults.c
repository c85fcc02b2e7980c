/* Bridges that do what none should: engine_faults/fake_python.py has them. Whatever they do, a call ends,
 * with what is true, and nothing is written after its end. */
#include "engine.h"

static char params[400];

/* Has the next bridge be a faulty one; `more` are further parameters. */
static pb_scope push_fake(int32_t n_jobs, const char *mode, const char *more) {
    CHECK_INT(0, setenv("PB_FAKE", mode, 1));
    snprintf(params, sizeof params, "address=echo;threads=2;python=%s;%s", getenv("PB_TEST_FAKE"), more);
    return push_engine(n_jobs, params);
}

static void pop_fake(pb_scope scope) {
    CHECK_OK(pb_pop_backend(scope));
    CHECK_OK(pb_shutdown()); /* so that the next one is a new one */
}

static void check_fails(const char *mode, const char *more, pb_status status, const char *text) {
    int64_t outputs[ITEMS];
    const pb_scope scope = push_fake(-1, mode, more);
    CHECK_STATUS(map_add_one(outputs, NULL), status);
    CHECK_TEXT(text);
    for (int i = 0; i < ITEMS; ++i)
        CHECK_INT(-1, outputs[i]);
    pop_fake(scope);
}

static void check_works(const char *mode) {
    const pb_scope scope = push_fake(-1, mode, "");
    for (int round = 0; round < 3; ++round)
        check_add_one();
    pop_fake(scope);
}

/* ---- the start ---- */

TEST(an_engine_that_is_missing_says_how_to_get_it) {
    check_fails("refuses", "", PB_ERR_BACKEND_UNAVAILABLE, "pip install distributed");
}

TEST(nobody_waits_longer_for_a_start_than_was_said) {
    const double begin = seconds();
    check_fails("never_ready", "start_timeout=0.2", PB_ERR_TIMEOUT, "within 0.2 s");
    check_fails("never_reads", "start_timeout=0.2", PB_ERR_TIMEOUT, "start_timeout=");
    CHECK(seconds() - begin < PATIENCE);
}

/* ---- results that are none ---- */

TEST(results_count_once_in_any_order_and_only_for_their_chunk) {
    check_works("twice");
    check_works("reordered");
    check_works("strange");
}

TEST(a_reply_that_is_none_ends_the_map) {
    check_fails("garbled", "", PB_ERR_INVALID_ARGUMENT, "no message of parallel_backend");
}

TEST(frames_that_are_none_end_the_session_and_say_what_they_were) {
    check_fails("garbage", "", PB_ERR_INTERNAL, "begins differently");
    check_fails("unknown", "", PB_ERR_INTERNAL, "no frame of type 99");
    check_fails("oversized", "", PB_ERR_INTERNAL, "1099511627776 of body");
    check_fails("other_version", "", PB_ERR_INTERNAL, "version 7");
    check_fails("truncated", "", PB_ERR_WORKER_LOST, "exited with code 0");
}

/* ---- deaths ---- */

TEST(a_bridge_that_dies_is_noticed_at_once_and_its_last_words_are_told) {
    CHECK_INT(0, setenv("PB_TEST_TOKEN", "xyzzy-4711", 1));
    CHECK_INT(0, setenv("PB_TEST_NAME", "caf\xe9", 1)); /* no UTF-8: it must not matter */
    const pb_scope scope = push_fake(-1, "dies", "");
    int64_t outputs[ITEMS];
    const double begin = seconds();
    CHECK_STATUS(map_add_one(outputs, NULL), PB_ERR_WORKER_LOST);
    CHECK_TEXT("was killed by signal 9");
    CHECK_TEXT("the last line, with ***"); /* and no secret among them */
    CHECK(strstr(pb_last_error(), "xyzzy") == NULL);
    CHECK(seconds() - begin < 10);
    CHECK_INT(0, setenv("PB_FAKE", "", 1));
    check_add_one(); /* the next call has a new bridge */
    pop_fake(scope);
    check_fails("leaves", "", PB_ERR_WORKER_LOST, "exited with code 7");
}

TEST(an_engine_that_is_gone_ends_the_map_with_what_the_bridge_says) {
    check_fails("fatal", "", PB_ERR_WORKER_LOST, "the scheduler at tcp://nowhere:1 is gone");
    check_fails("fatal", "", PB_ERR_WORKER_LOST, "scheduler says goodbye");
}

TEST(a_call_that_cannot_go_on_leaves_the_session_as_it_is) {
    const pb_scope scope = push_fake(-1, "fails", "");
    int64_t outputs[ITEMS];
    (void)pb_effective_n_jobs(0);
    const pid_t bridge = only_child_of(getpid());
    for (int round = 0; round < 3; ++round) {
        CHECK_STATUS(map_add_one(outputs, NULL), PB_ERR_TASK_NOT_PORTABLE);
        CHECK_TEXT("the worker lacks libmissing.so");
    }
    CHECK_INT(bridge, only_child_of(getpid()));
    pop_fake(scope);
}

TEST(a_bridge_that_takes_nothing_is_given_up) {
    const pb_scope scope = push_fake(-1, "freezes", "engine_timeout=0.3");
    pb_map_options options = {.struct_size = sizeof options, .timeout = 0.1};
    int64_t outputs[ITEMS];
    CHECK_STATUS(map_add_one(outputs, &options), PB_ERR_TIMEOUT);
    static char ctx[1 << 20]; /* more than a socket holds */
    options.ctx_size = sizeof ctx;
    CHECK_STATUS(
        pb_parallel_map(engine_task("add_one"), ctx, ITEMS, NULL, 0, outputs, sizeof *outputs, &options),
        PB_ERR_WORKER_LOST);
    CHECK_TEXT("it hangs");
    CHECK_INT(0, setenv("PB_FAKE", "", 1));
    check_add_one(); /* the next call has a new bridge */
    pop_fake(scope);
}

/* ---- lost chunks ---- */

TEST(items_of_a_lost_chunk_fail_with_their_worker) {
    const pb_scope scope = push_fake(-1, "always_lost", "");
    int64_t outputs[ITEMS];
    CHECK_STATUS(map_add_one(outputs, NULL), PB_ERR_WORKER_LOST);
    CHECK_TEXT("was killed by signal 9 (tcp://w:1)");
    pb_map_options options = {.struct_size = sizeof options, .retries = 2};
    CHECK_STATUS(map_add_one(outputs, &options), PB_ERR_WORKER_LOST);
    CHECK_TEXT("after 3 attempts");
    pop_fake(scope);
}

TEST(items_of_a_lost_chunk_are_started_again_as_often_as_they_may) {
    const pb_scope scope = push_fake(-1, "lost_once", "");
    pb_map_options options = {.struct_size = sizeof options, .retries = 1, .batch_size = 7};
    int64_t outputs[ITEMS];
    CHECK_OK(map_add_one(outputs, &options));
    for (int i = 0; i < ITEMS; ++i)
        CHECK_INT(i + 1, outputs[i]);
    pop_fake(scope);
}

/* ---- silence ---- */

TEST(a_cluster_without_workers_ends_the_map) {
    int64_t outputs[ITEMS];
    const pb_scope scope = push_fake(-1, "no_slots", "engine_timeout=0.2");
    CHECK_STATUS(map_add_one(outputs, NULL), PB_ERR_TIMEOUT);
    CHECK_TEXT("no workers for 0.2 s");
    pop_fake(scope);
}

TEST(a_stall_ends_the_map_where_the_caller_says_so) {
    check_fails("silent", "stall_timeout=0.2", PB_ERR_TIMEOUT, "stall_timeout");
}

TEST(an_item_that_never_ends_does_not_hold_its_map) {
    const pb_scope scope = push_fake(-1, "silent", "engine_timeout=0.2");
    pb_map_options options = {.struct_size = sizeof options, .timeout = 0.05};
    int64_t outputs[ITEMS];
    CHECK_STATUS(map_add_one(outputs, &options), PB_ERR_TIMEOUT);
    CHECK_TEXT("an item has not begun or does not end");
    pop_fake(scope);
}

TEST(a_cancel_that_is_not_answered_has_an_end) {
    const pb_scope scope = push_fake(-1, "deaf", "stall_timeout=0.1");
    int64_t outputs[ITEMS];
    const double begin = seconds();
    CHECK_STATUS(map_add_one(outputs, NULL), PB_ERR_TIMEOUT);
    CHECK_TEXT("chunks still run");
    CHECK(seconds() - begin < PATIENCE);
    pop_fake(scope);
}

/* ---- limits that the library keeps ---- */

/* The bridge ends the session where it has seen more chunks or bytes on their way than these. */
static void check_counted(int32_t n_jobs, const char *limits) {
    CHECK_INT(0, setenv("PB_FAKE_LIMITS", limits, 1));
    const pb_scope scope = push_fake(n_jobs, "counted", "");
    static char inputs[300][1000];
    static int64_t outputs[300];
    for (size_t batch = 0; batch < 3; ++batch) {
        const pb_map_options options = {.struct_size = sizeof options, .batch_size = batch};
        CHECK_OK(pb_parallel_map(engine_task("add_one"), NULL, 300, inputs, sizeof *inputs, outputs,
                                 sizeof *outputs, &options));
    }
    for (int i = 0; i < 300; ++i)
        CHECK_INT(i + 1, outputs[i]);
    pop_fake(scope);
}

TEST(no_more_is_on_its_way_than_two_chunks_a_slot_and_the_credit) {
    check_counted(-1, "6 20000");
    check_counted(2, "6 20000");
    check_counted(1, "1 20000");
}

TEST(an_item_that_is_larger_than_a_task_may_be_is_refused) {
    const pb_scope scope = push_fake(-1, "counted", "");
    static char inputs[2][9000];
    CHECK_STATUS(pb_parallel_map(engine_task("add_one"), NULL, 2, inputs, sizeof *inputs, NULL, 0, NULL),
                 PB_ERR_UNSUPPORTED);
    CHECK_TEXT("more than the 8000");
    const pb_bytes strings[2] = {{"x", 1}, {inputs, 9000}};
    pb_results *results = NULL;
    void *symbol = engine_symbol("grow");
    pb_bytes_fn grow;
    memcpy(&grow, &symbol, sizeof grow);
    CHECK_STATUS(pb_map_bytes(grow, NULL, 2, strings, NULL, &results), PB_ERR_UNSUPPORTED);
    CHECK_TEXT("item 1 has");
    pop_fake(scope);
}

TEST(slots_that_come_in_the_middle_are_used) {
    const pb_scope scope = push_fake(-1, "more_slots", "");
    check_add_one();
    CHECK_INT(8, pb_effective_n_jobs(0));
    pop_fake(scope);
}

int main(void) {
    RUN(an_engine_that_is_missing_says_how_to_get_it);
    RUN(nobody_waits_longer_for_a_start_than_was_said);
    RUN(results_count_once_in_any_order_and_only_for_their_chunk);
    RUN(a_reply_that_is_none_ends_the_map);
    RUN(frames_that_are_none_end_the_session_and_say_what_they_were);
    RUN(a_bridge_that_dies_is_noticed_at_once_and_its_last_words_are_told);
    RUN(an_engine_that_is_gone_ends_the_map_with_what_the_bridge_says);
    RUN(a_call_that_cannot_go_on_leaves_the_session_as_it_is);
    RUN(a_bridge_that_takes_nothing_is_given_up);
    RUN(items_of_a_lost_chunk_fail_with_their_worker);
    RUN(items_of_a_lost_chunk_are_started_again_as_often_as_they_may);
    RUN(a_cluster_without_workers_ends_the_map);
    RUN(a_stall_ends_the_map_where_the_caller_says_so);
    RUN(an_item_that_never_ends_does_not_hold_its_map);
    RUN(a_cancel_that_is_not_answered_has_an_end);
    RUN(no_more_is_on_its_way_than_two_chunks_a_slot_and_the_credit);
    RUN(an_item_that_is_larger_than_a_task_may_be_is_refused);
    RUN(slots_that_come_in_the_middle_are_used);
    CHECK_OK(pb_shutdown());
    return check_result();
}
