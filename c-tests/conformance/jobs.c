/* Submitted maps: waiting, streams, notice, cancelling, freeing. */
#include "conformance.h"

enum { N = 200 };

static int32_t square(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)input;
    *(int64_t *)output = (int64_t)index * (int64_t)index;
    return 0;
}

static int32_t last_until_cancelled(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    return wait_until_cancelled() ? 0 : 99;
}

static pb_job *submit(pb_task_fn fn, void *ctx, size_t n, int64_t *outputs, const pb_map_options *options) {
    pb_job *job = NULL;
    CHECK_OK(pb_submit_map(fn, ctx, n, NULL, 0, outputs, sizeof *outputs, options, &job));
    CHECK(job != NULL);
    return job;
}

TEST(a_submitted_map_can_be_waited_for_again_and_again) {
    int64_t outputs[N];
    const pb_scope scope = use_backend(2);
    pb_job *job = submit(square, NULL, N, outputs, NULL);
    CHECK_OK(pb_job_wait(job, -1));
    for (size_t i = 0; i < N; ++i)
        CHECK_INT(i * i, outputs[i]);
    CHECK_OK(pb_job_wait(job, 0));
    pb_job_free(job);
    CHECK_OK(pb_pop_backend(scope));
}

TEST(a_submitted_map_outlives_its_scope) {
    int64_t outputs[N];
    const pb_scope scope = use_backend(2);
    pb_job *job = submit(square, NULL, N, outputs, NULL);
    CHECK_OK(pb_pop_backend(scope));
    CHECK_OK(pb_job_wait(job, -1));
    CHECK_INT((N - 1) * (N - 1), outputs[N - 1]);
    pb_job_free(job);
}

TEST(a_stream_hands_out_items_in_index_order_with_their_results) {
    int64_t outputs[N];
    memset(outputs, 0xff, sizeof outputs);
    const pb_scope scope = use_backend(3);
    pb_job *job = submit(square, NULL, N, outputs, NULL);
    size_t index = 0;
    for (size_t i = 0; i < N; ++i) {
        CHECK_OK(pb_job_next(job, -1, &index));
        CHECK_INT(i, index);
        CHECK_INT(i * i, outputs[i]);
    }
    CHECK_STATUS(pb_job_next(job, -1, &index), PB_DONE);
    CHECK_OK(pb_job_wait(job, -1));
    pb_job_free(job);
    CHECK_OK(pb_pop_backend(scope));
}

TEST(an_unordered_stream_hands_out_each_item_once) {
    int64_t outputs[N];
    char seen[N] = {0};
    pb_map_options options = with_ctx_size(0);
    options.flags = PB_UNORDERED;
    const pb_scope scope = use_backend(3);
    pb_job *job = submit(square, NULL, N, outputs, &options);
    size_t index = 0;
    for (size_t i = 0; i < N; ++i) {
        CHECK_OK(pb_job_next(job, -1, &index));
        CHECK(index < N);
        CHECK_INT(0, seen[index]);
        CHECK_INT(index * index, outputs[index]);
        seen[index] = 1;
    }
    CHECK_STATUS(pb_job_next(job, -1, &index), PB_DONE);
    pb_job_free(job);
    CHECK_OK(pb_pop_backend(scope));
}

static int32_t wait_at_gate(void *ctx, size_t index, const void *input, void *output) {
    if (index == N - 1)
        gate_wait(ctx);
    return square(NULL, index, input, output);
}

/* Shared: the last item waits for what the caller does once it has the others, on any number of workers. */
TEST(items_are_handed_out_while_others_run) {
    struct gate gate = GATE_CLOSED;
    int64_t outputs[N];
    pb_map_options options = with_ctx_size(sizeof gate);
    const pb_scope scope = use_backend(2);
    for (uint32_t flags = 0; flags <= PB_UNORDERED; flags += PB_UNORDERED) {
        options.flags = flags;
        gate.is_open = 0;
        pb_job *job = submit(wait_at_gate, &gate, N, outputs, &options);
        size_t index = N;
        for (size_t i = 0; i < N - 1; ++i)
            CHECK_OK(pb_job_next(job, -1, &index));
        index = N;
        CHECK_STATUS(pb_job_next(job, 0, &index), PB_PENDING);
        CHECK_STATUS(pb_job_next(job, 0.01, &index), PB_PENDING);
        CHECK_STATUS(pb_job_wait(job, 0), PB_PENDING);
        CHECK_INT(N, index);
        gate_open(&gate);
        CHECK_OK(pb_job_next(job, -1, &index));
        CHECK_INT(N - 1, index);
        CHECK_OK(pb_job_wait(job, -1));
        pb_job_free(job);
    }
    CHECK_OK(pb_pop_backend(scope));
}

static int32_t fail_at_10(void *ctx, size_t index, const void *input, void *output) {
    return index == 10 ? 8 : square(ctx, index, input, output);
}

TEST(a_stream_ends_with_the_error_of_its_job) {
    int64_t outputs[N];
    pb_map_options options = with_ctx_size(0);
    options.n_jobs = 1; /* so that the items before the failed one have finished */
    const pb_scope scope = use_backend(2);
    pb_job *job = submit(fail_at_10, NULL, N, outputs, &options);
    size_t index = 0;
    for (size_t i = 0; i < 10; ++i) {
        CHECK_OK(pb_job_next(job, -1, &index));
        CHECK_INT(i, index);
    }
    CHECK_STATUS(pb_job_next(job, -1, &index), PB_ERR_TASK_FAILED);
    CHECK_TEXT("item 10");
    CHECK_STATUS(pb_job_wait(job, -1), PB_ERR_TASK_FAILED);
    pb_error_info info = {.struct_size = sizeof info};
    CHECK_OK(pb_last_error_info(&info));
    CHECK_INT(10, info.task_index);
    CHECK_INT(8, info.task_code);
    pb_job_free(job);
    CHECK_OK(pb_pop_backend(scope));
}

TEST(jobs_may_be_in_flight_together) {
    enum { JOBS = 8 };
    static int64_t outputs[JOBS][N];
    pb_job *jobs[JOBS];
    const pb_scope scope = use_backend(2);
    for (size_t k = 0; k < JOBS; ++k)
        jobs[k] = submit(square, NULL, N, outputs[k], NULL);
    for (size_t k = JOBS; k-- > 0;) {
        CHECK_OK(pb_job_wait(jobs[k], -1));
        pb_job_free(jobs[k]);
        for (size_t i = 0; i < N; ++i)
            CHECK_INT(i * i, outputs[k][i]);
    }
    CHECK_OK(pb_pop_backend(scope));
}

/* ---- notice ---- */

struct notice {
    struct gate gate;
    int32_t count;
};

static int32_t note(void *user) {
    struct notice *notice = user;
    __atomic_fetch_add(&notice->count, 1, __ATOMIC_RELAXED);
    gate_open(&notice->gate);
    return 0;
}

TEST(the_end_of_a_job_is_told_once) {
    struct notice notice = {GATE_CLOSED, 0};
    int64_t outputs[N];
    const pb_scope scope = use_backend(2);
    pb_job *job = submit(square, NULL, N, outputs, NULL);
    CHECK_OK(pb_job_notify(job, note, &notice));
    gate_wait(&notice.gate);
    CHECK_OK(pb_job_wait(job, 0)); /* it is over */
    pb_job_free(job);
    CHECK_INT(1, __atomic_load_n(&notice.count, __ATOMIC_RELAXED));
    CHECK_OK(pb_pop_backend(scope));
}

/* ---- ending early ---- */

TEST(a_cancelled_job_stops_its_tasks_and_starts_no_more) {
    int64_t outputs[N];
    int32_t statuses[N];
    pb_map_options options = with_ctx_size(0);
    options.statuses = statuses;
    options.batch_size = 1;
    const pb_scope scope = use_backend(2);
    pb_job *job = submit(last_until_cancelled, NULL, N, outputs, &options);
    CHECK_OK(pb_job_cancel(job));
    CHECK_STATUS(pb_job_wait(job, -1), PB_ERR_CANCELLED);
    size_t index = 0;
    pb_status next;
    while ((next = pb_job_next(job, -1, &index)) == PB_OK)
        CHECK_INT(0, statuses[index]);
    CHECK_INT(PB_ERR_CANCELLED, next);
    pb_job_free(job);
    int32_t started = 0;
    for (size_t i = 0; i < N; ++i) {
        CHECK(statuses[i] == 0 || statuses[i] == PB_ERR_CANCELLED);
        started += statuses[i] == 0;
    }
    CHECK(started <= pb_effective_n_jobs(0));
    CHECK_OK(pb_pop_backend(scope));
}

TEST(cancelling_what_is_over_changes_nothing) {
    int64_t outputs[N];
    const pb_scope scope = use_backend(2);
    pb_job *job = submit(square, NULL, N, outputs, NULL);
    CHECK_OK(pb_job_wait(job, -1));
    CHECK_OK(pb_job_cancel(job));
    CHECK_OK(pb_job_wait(job, -1));
    pb_job_free(job);
    CHECK_OK(pb_pop_backend(scope));
}

struct visit {
    struct gate started;
    int32_t inside;
};

static int32_t visit(void *ctx, size_t index, const void *input, void *output) {
    struct visit *v = ctx;
    (void)index, (void)input, (void)output;
    __atomic_fetch_add(&v->inside, 1, __ATOMIC_SEQ_CST);
    gate_open(&v->started);
    const int asked = wait_until_cancelled();
    __atomic_fetch_sub(&v->inside, 1, __ATOMIC_SEQ_CST);
    return asked ? 0 : 99;
}

/* Shared: it looks at what the tasks are doing. */
TEST(freeing_a_job_that_runs_cancels_it_and_waits) {
    struct visit v = {GATE_CLOSED, 0};
    int64_t outputs[N];
    const pb_scope scope = use_backend(2);
    pb_job *job = submit(visit, &v, N, outputs, NULL);
    gate_wait(&v.started);
    pb_job_free(job);
    CHECK_INT(0, __atomic_load_n(&v.inside, __ATOMIC_SEQ_CST));
    CHECK_OK(pb_pop_backend(scope));
}

void test_jobs(void) {
    RUN(a_submitted_map_can_be_waited_for_again_and_again);
    RUN(a_submitted_map_outlives_its_scope);
    RUN(a_stream_hands_out_items_in_index_order_with_their_results);
    RUN(an_unordered_stream_hands_out_each_item_once);
    RUN_SHARED(items_are_handed_out_while_others_run);
    RUN(a_stream_ends_with_the_error_of_its_job);
    RUN(jobs_may_be_in_flight_together);
    RUN(the_end_of_a_job_is_told_once);
    RUN(a_cancelled_job_stops_its_tasks_and_starts_no_more);
    RUN(cancelling_what_is_over_changes_nothing);
    RUN_SHARED(freeing_a_job_that_runs_cancels_it_and_waits);
}
