/* Maps that end before their time: timeout, cancel; and progress, which can ask for it. */
#include "conformance.h"

/* Far above what a quick task can take on a loaded machine. */
static const double TIMEOUT = 1;

/* Item `late` lasts until it is asked to stop, the others no time at all. */
static int32_t be_late(void *ctx, size_t index, const void *input, void *output) {
    (void)input, (void)output;
    return index != *(const size_t *)ctx || wait_until_cancelled() ? 0 : 99;
}

TEST(a_late_task_ends_its_map) {
    size_t late = 3;
    pb_map_options options = with_ctx_size(sizeof late);
    options.timeout = TIMEOUT;
    const pb_scope scope = use_backend(2);
    CHECK_STATUS(pb_parallel_map(be_late, &late, 5, NULL, 0, NULL, 0, &options), PB_ERR_TIMEOUT);
    CHECK_TEXT("item 3");
    pb_error_info info = {.struct_size = sizeof info};
    CHECK_OK(pb_last_error_info(&info));
    CHECK_INT(PB_ERR_TIMEOUT, info.status);
    CHECK_INT(3, info.task_index);
    CHECK_OK(pb_pop_backend(scope));
}

TEST(where_errors_are_collected_a_late_task_concerns_only_itself) {
    enum { N = 20 };
    size_t late = 2;
    int32_t statuses[N];
    pb_map_options options = with_ctx_size(sizeof late);
    options.timeout = TIMEOUT;
    options.flags = PB_COLLECT_ERRORS;
    options.statuses = statuses;
    const pb_scope scope = use_backend(2);
    CHECK_STATUS(pb_parallel_map(be_late, &late, N, NULL, 0, NULL, 0, &options), PB_ERR_TASK_FAILED);
    for (size_t i = 0; i < N; ++i)
        CHECK_INT(i == late ? PB_ERR_TIMEOUT : 0, statuses[i]);
    CHECK_OK(pb_pop_backend(scope));
}

static int32_t work_20_ms(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    const double end = seconds() + 0.02;
    while (seconds() < end) {
    }
    return 0;
}

/* The map as a whole takes longer than the timeout on one worker. */
TEST(the_timeout_is_that_of_one_task_from_its_own_start) {
    pb_map_options options = with_ctx_size(0);
    options.timeout = TIMEOUT;
    options.n_jobs = 1;
    options.batch_size = 20;
    const pb_scope scope = use_backend(2);
    CHECK_OK(pb_parallel_map(work_20_ms, NULL, 20, NULL, 0, NULL, 0, &options));
    CHECK_OK(pb_pop_backend(scope));
}

/* ---- progress ---- */

struct reports {
    int32_t inside, overlaps, count, bad;
    size_t done, failed, total;
    double elapsed;
};

static int32_t hear(void *user, size_t done, size_t failed, size_t total, double elapsed) {
    struct reports *r = user;
    r->overlaps += __atomic_exchange_n(&r->inside, 1, __ATOMIC_ACQUIRE);
    r->count += 1;
    r->bad += done < r->done || failed < r->failed || done + failed > total || elapsed < r->elapsed;
    r->done = done;
    r->failed = failed;
    r->total = total;
    r->elapsed = elapsed;
    __atomic_store_n(&r->inside, 0, __ATOMIC_RELEASE);
    return 0;
}

TEST(progress_grows_in_one_thread_at_a_time_and_ends_at_the_total) {
    struct reports r = {0};
    pb_map_options options = with_ctx_size(0);
    options.progress = hear;
    options.progress_user = &r;
    const pb_scope scope = use_backend(4);
    CHECK_OK(pb_parallel_map(work_20_ms, NULL, 24, NULL, 0, NULL, 0, &options));
    CHECK_OK(pb_pop_backend(scope));
    CHECK(r.count >= 2);                         /* 120 ms at least: more than the last call */
    CHECK(r.count <= 2 + (int)(r.elapsed * 20)); /* at most twenty a second */
    CHECK_INT(0, r.overlaps);
    CHECK_INT(0, r.bad);
    CHECK_INT(24, r.done);
    CHECK_INT(0, r.failed);
    CHECK_INT(24, r.total);
}

static int32_t stop_now(void *user, size_t done, size_t failed, size_t total, double elapsed) {
    (void)done, (void)failed, (void)total, (void)elapsed;
    ++*(int32_t *)user;
    return 1;
}

/* Item 0 takes long enough for a report to be due, the others last until they are asked to stop. */
static int32_t first_takes_80_ms(void *ctx, size_t index, const void *input, void *output) {
    if (index > 0)
        return wait_until_cancelled() ? 0 : 99;
    for (int i = 0; i < 4; ++i)
        work_20_ms(ctx, index, input, output);
    return 0;
}

TEST(progress_can_cancel_the_map) {
    int32_t calls = 0;
    pb_map_options options = with_ctx_size(0);
    options.progress = stop_now;
    options.progress_user = &calls;
    options.batch_size = 1;
    const pb_scope scope = use_backend(2);
    CHECK_STATUS(pb_parallel_map(first_takes_80_ms, NULL, 50, NULL, 0, NULL, 0, &options), PB_ERR_CANCELLED);
    CHECK(calls >= 1);
    CHECK_OK(pb_pop_backend(scope));
}

void test_stopping(void) {
    RUN(a_late_task_ends_its_map);
    RUN(where_errors_are_collected_a_late_task_concerns_only_itself);
    RUN(the_timeout_is_that_of_one_task_from_its_own_start);
    RUN(progress_grows_in_one_thread_at_a_time_and_ends_at_the_total);
    RUN(progress_can_cancel_the_map);
}
