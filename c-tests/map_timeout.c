/* The timeout: for each task, from its own start, on every backend. */
#include "sync.h"

static const char *const BACKENDS[] = {"sequential", "threading"};

/* Long for a task that does next to nothing on a busy machine, short for a test. */
#define SHORT 0.15

typedef struct plan {
    size_t slow; /* this item waits until it is asked to stop */
    counter started, ended;
    int asked; /* the slow item was asked to stop */
} plan;

static int32_t follow(void *ctx, size_t index, const void *input, void *output) {
    (void)input, (void)output;
    plan *p = ctx;
    counter_raise(&p->started);
    if (index == p->slow)
        __atomic_store_n(&p->asked, wait_cancelled(), __ATOMIC_RELAXED);
    counter_raise(&p->ended);
    return 0;
}

/* joblib: test_parallel.py::test_timeout_fail; and test_warning_about_timeout_not_supported, which is ours no
 * more: sequential maps keep the timeout too. */
TEST(a_late_task_is_asked_to_stop_and_no_further_one_starts) {
    for (size_t b = 0; b < 2; b++) {
        pb_scope scope = use_backend(BACKENDS[b], 1);
        plan p = {3, COUNTER, COUNTER, 0};
        pb_map_options options = {.struct_size = sizeof options, .timeout = SHORT, .batch_size = 20 * b};
        CHECK_STATUS(pb_parallel_map(follow, &p, 20, NULL, 0, NULL, 0, &options), PB_ERR_TIMEOUT);
        CHECK_TEXT("item 3");
        CHECK_TEXT("timeout");
        CHECK_INT(PB_ERR_TIMEOUT, last_info().status);
        CHECK_INT(3, last_info().task_index);
        CHECK_INT(1, p.asked);
        CHECK_INT(4, counter_get(&p.started));
        CHECK_OK(pb_pop_backend(scope));
    }
}

/* Item 0 is late. The other worker's item ends only after that was seen, and takes no further one. */
static int32_t late_beside_another(void *ctx, size_t index, const void *input, void *output) {
    plan *p = ctx;
    const int32_t code = follow(ctx, index, input, output);
    if (index != 0)
        CHECK(counter_wait(&p->ended, 2)); /* item 0 and this one */
    return code;
}

TEST(the_call_returns_when_the_running_tasks_have_ended) {
    plan p = {0, COUNTER, COUNTER, 0};
    pb_map_options options = {.struct_size = sizeof options, .n_jobs = 2, .timeout = SHORT, .batch_size = 1};
    CHECK_STATUS(pb_parallel_map(late_beside_another, &p, 1000, NULL, 0, NULL, 0, &options), PB_ERR_TIMEOUT);
    CHECK_INT(1, p.asked);
    CHECK(counter_get(&p.started) <= 2);
    CHECK_INT(counter_get(&p.started), counter_get(&p.ended));
}

static int32_t busy(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    work_for(1.2 * SHORT);
    return 0;
}

TEST(a_late_task_fails_the_map_even_if_it_never_asks) {
    for (size_t b = 0; b < 2; b++) {
        pb_scope scope = use_backend(BACKENDS[b], 1);
        pb_map_options options = {.struct_size = sizeof options, .timeout = SHORT};
        CHECK_STATUS(pb_parallel_map(busy, NULL, 3, NULL, 0, NULL, 0, &options), PB_ERR_TIMEOUT);
        CHECK_INT(0, last_info().task_index);
        CHECK_OK(pb_pop_backend(scope));
    }
}

static int32_t quick(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    work_for(1e-4);
    return pb_cancelled();
}

/* joblib: test_parallel.py::test_timeout_success. The map takes longer than the timeout, no task does. */
TEST(quick_tasks_are_never_late_however_many_there_are) {
    for (size_t b = 0; b < 2; b++) {
        pb_scope scope = use_backend(BACKENDS[b], 1);
        pb_map_options options = {.struct_size = sizeof options, .timeout = PATIENCE};
        CHECK_OK(pb_parallel_map(quick, NULL, 500, NULL, 0, NULL, 0, &options));
        options.timeout = 1e300; /* longer than any clock counts */
        CHECK_OK(pb_parallel_map(quick, NULL, 5, NULL, 0, NULL, 0, &options));
        CHECK_OK(pb_pop_backend(scope));
    }
    pb_map_options options = {.struct_size = sizeof options, .n_jobs = 1, .timeout = 0.3};
    const double begin = seconds();
    CHECK_OK(pb_parallel_map(quick, NULL, 3300, NULL, 0, NULL, 0, &options));
    CHECK(seconds() - begin > options.timeout);
}

TEST(the_next_map_works) {
    pb_scope scope = use_backend("threading", 2);
    plan late = {0, COUNTER, COUNTER, 0}, good = {SIZE_MAX, COUNTER, COUNTER, 0};
    pb_map_options options = {.struct_size = sizeof options, .timeout = SHORT};
    CHECK_STATUS(pb_parallel_map(follow, &late, 10, NULL, 0, NULL, 0, &options), PB_ERR_TIMEOUT);
    CHECK_OK(pb_parallel_map(follow, &good, 10, NULL, 0, NULL, 0, NULL));
    CHECK_INT(10, counter_get(&good.ended));
    CHECK_OK(pb_pop_backend(scope));
}

/* joblib: test_parallel.py::test_timeout_fail with return_as generator and generator_unordered */
TEST(streams_hand_out_what_finished_and_then_the_timeout) {
    const uint32_t flags[] = {0, PB_UNORDERED};
    for (size_t f = 0; f < 2; f++) {
        plan p = {5, COUNTER, COUNTER, 0};
        pb_map_options options = {
            .struct_size = sizeof options, .n_jobs = 1, .flags = flags[f], .timeout = SHORT};
        pb_job *job;
        REQUIRE(pb_submit_map(follow, &p, 100, NULL, 0, NULL, 0, &options, &job) == PB_OK);
        size_t index;
        for (size_t i = 0; i < 5; i++) {
            CHECK_OK(pb_job_next(job, -1, &index));
            CHECK_INT(i, index);
        }
        CHECK_STATUS(pb_job_next(job, -1, &index), PB_ERR_TIMEOUT);
        CHECK_INT(5, last_info().task_index);
        CHECK_STATUS(pb_job_wait(job, 0), PB_ERR_TIMEOUT);
        pb_job_free(job);
    }
}

/* Nobody asks but the one who waits: it stops the job in time, although no task or worker looks at the clock.
 */
static int32_t wait_for_the_end_of_0(void *ctx, size_t index, const void *input, void *output) {
    (void)input, (void)output;
    plan *p = ctx;
    counter_raise(&p->started);
    if (index == 0)
        CHECK(counter_wait(&p->ended, 1));
    return 0;
}

TEST(who_waits_for_a_job_sees_to_its_timeout) {
    plan p = {0, COUNTER, COUNTER, 0};
    pb_map_options options = {.struct_size = sizeof options, .n_jobs = 1, .timeout = SHORT, .batch_size = 1};
    pb_job *job;
    REQUIRE(pb_submit_map(wait_for_the_end_of_0, &p, 100, NULL, 0, NULL, 0, &options, &job) == PB_OK);
    CHECK(counter_wait(&p.started, 1));
    CHECK_STATUS(pb_job_wait(job, 2 * SHORT), PB_PENDING); /* a thread cannot be stopped */
    CHECK_INT(1, pb_job_cancelled(job));
    counter_raise(&p.ended);
    CHECK_STATUS(pb_job_wait(job, -1), PB_ERR_TIMEOUT);
    CHECK_INT(1, counter_get(&p.started));
    pb_job_free(job);
}

static int32_t wait_all(void *ctx, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    CHECK(wait_cancelled());
    counter_raise(ctx);
    return 0;
}

static int32_t nested_wait(void *ctx, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    pb_map_options options = {.struct_size = sizeof options, .n_jobs = 2};
    CHECK_STATUS(pb_parallel_map(wait_all, ctx, 100, NULL, 0, NULL, 0, &options), PB_ERR_CANCELLED);
    return 0;
}

TEST(a_late_tasks_nested_map_is_cancelled) {
    counter ended = COUNTER;
    pb_map_options options = {.struct_size = sizeof options, .n_jobs = 2, .timeout = SHORT};
    CHECK_STATUS(pb_parallel_map(nested_wait, &ended, 1, NULL, 0, NULL, 0, &options), PB_ERR_TIMEOUT);
    CHECK(counter_get(&ended) >= 1);
    CHECK(counter_get(&ended) <= 2); /* one for each worker */
}

int main(void) {
    RUN(a_late_task_is_asked_to_stop_and_no_further_one_starts);
    RUN(the_call_returns_when_the_running_tasks_have_ended);
    RUN(a_late_task_fails_the_map_even_if_it_never_asks);
    RUN(quick_tasks_are_never_late_however_many_there_are);
    RUN(the_next_map_works);
    RUN(streams_hand_out_what_finished_and_then_the_timeout);
    RUN(who_waits_for_a_job_sees_to_its_timeout);
    RUN(a_late_tasks_nested_map_is_cancelled);
    CHECK_OK(pb_shutdown());
    return check_result();
}
