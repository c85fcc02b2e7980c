/* Progress: rate-limited, never concurrent, complete at the end, and a way to cancel; on every backend alike.
 */
#include "sync.h"

static const char *const BACKENDS[] = {"sequential", "threading"};

typedef struct heard {
    size_t calls, done, failed, total;
    double elapsed;
    int inside;
    size_t cancel_at; /* the call that asks to cancel, counted from 1; 0 is none */
} heard;

static int32_t hear(void *user, size_t done, size_t failed, size_t total, double elapsed) {
    heard *h = user;
    CHECK_INT(0, __atomic_exchange_n(&h->inside, 1, __ATOMIC_ACQUIRE));
    CHECK(done >= h->done);
    CHECK(failed >= h->failed);
    CHECK(elapsed >= h->elapsed);
    CHECK(done + failed <= total);
    h->done = done;
    h->failed = failed;
    h->total = total;
    h->elapsed = elapsed;
    h->calls++;
    work_for(1e-3); /* long enough for another worker to come by */
    __atomic_store_n(&h->inside, 0, __ATOMIC_RELEASE);
    return h->calls == h->cancel_at;
}

static pb_map_options hearing(heard *h) {
    return (pb_map_options){.struct_size = sizeof(pb_map_options), .progress = hear, .progress_user = h};
}

static int32_t a_millisecond(void *ctx, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    if (ctx != NULL)
        counter_raise(ctx);
    work_for(1e-3);
    return 0;
}

static int32_t odd_items_fail(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)input, (void)output;
    return index % 2 == 1;
}

static int32_t nothing(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    return 0;
}

/* joblib#1557, #1736: its hook is not called with one worker */
TEST(a_map_that_succeeds_ends_with_everything_done) {
    const size_t sizes[] = {0, 1, 1000};
    for (size_t b = 0; b < 2; b++)
        for (size_t s = 0; s < 3; s++) {
            pb_scope scope = use_backend(BACKENDS[b], 3);
            heard h = {0};
            pb_map_options options = hearing(&h);
            CHECK_OK(pb_parallel_map(nothing, NULL, sizes[s], NULL, 0, NULL, 0, &options));
            CHECK(h.calls >= 1);
            CHECK_INT(sizes[s], h.done);
            CHECK_INT(sizes[s], h.total);
            CHECK_INT(0, h.failed);
            CHECK_OK(pb_pop_backend(scope));
        }
}

TEST(it_is_told_now_and_then_and_at_most_twenty_times_a_second) {
    for (size_t b = 0; b < 2; b++) {
        pb_scope scope = use_backend(BACKENDS[b], 4);
        heard h = {0};
        pb_map_options options = hearing(&h);
        /* 0.25 s of work for each of the workers there are, so the second call is due at some item's end */
        CHECK_OK(pb_parallel_map(a_millisecond, NULL, b == 0 ? 250 : 1000, NULL, 0, NULL, 0, &options));
        CHECK(h.calls >= 2);
        CHECK((double)h.calls <= h.elapsed * 20 + 1); /* and the one at the end */
        CHECK_OK(pb_pop_backend(scope));
    }
}

TEST(failed_items_are_counted) {
    heard h = {0};
    pb_map_options options = hearing(&h);
    options.flags = PB_COLLECT_ERRORS;
    options.n_jobs = 2;
    CHECK_STATUS(pb_parallel_map(odd_items_fail, NULL, 101, NULL, 0, NULL, 0, &options), PB_ERR_TASK_FAILED);
    CHECK_INT(51, h.done);
    CHECK_INT(50, h.failed);
    CHECK_INT(101, h.total);
}

TEST(a_map_that_fails_ends_with_what_was_done) {
    heard h = {0};
    pb_map_options options = hearing(&h);
    options.n_jobs = 1;
    CHECK_STATUS(pb_parallel_map(odd_items_fail, NULL, 101, NULL, 0, NULL, 0, &options), PB_ERR_TASK_FAILED);
    CHECK_INT(1, h.done);
    CHECK_INT(1, h.failed);
}

TEST(it_may_cancel) {
    const size_t n = 1000000; /* a quarter of an hour, were it not cancelled */
    for (size_t b = 0; b < 2; b++) {
        pb_scope scope = use_backend(BACKENDS[b], 2);
        heard h = {.cancel_at = 1};
        counter started = COUNTER;
        pb_map_options options = hearing(&h);
        CHECK_STATUS(pb_parallel_map(a_millisecond, &started, n, NULL, 0, NULL, 0, &options),
                     PB_ERR_CANCELLED);
        CHECK_TEXT("cancelled");
        CHECK_INT(counter_get(&started), h.done); /* what ran was finished, and told at the end */
        CHECK_INT(2, h.calls);
        CHECK_OK(pb_pop_backend(scope));
    }
}

TEST(a_cancel_that_comes_with_the_last_item_is_too_late) {
    heard h = {.cancel_at = 1};
    pb_map_options options = hearing(&h);
    CHECK_OK(pb_parallel_map(nothing, NULL, 1, NULL, 0, NULL, 0, &options));
    CHECK_INT(1, h.done);
}

TEST(submitted_jobs_tell_too_before_they_are_over) {
    heard h = {0};
    pb_map_options options = hearing(&h);
    pb_job *job;
    REQUIRE(pb_submit_map(nothing, NULL, 100, NULL, 0, NULL, 0, &options, &job) == PB_OK);
    CHECK_OK(pb_job_wait(job, -1));
    CHECK_INT(100, h.done);
    pb_job_free(job);
}

/* Maps of the library may be called from the callback: no lock is held, and it is no task. */
static int32_t map_in_callback(void *user, size_t done, size_t failed, size_t total, double elapsed) {
    (void)done, (void)failed, (void)total, (void)elapsed;
    CHECK_OK(pb_parallel_map(nothing, NULL, 10, NULL, 0, NULL, 0, NULL));
    ++*(int *)user;
    return 0;
}

TEST(the_callback_may_call_maps) {
    int calls = 0;
    pb_map_options options = {
        .struct_size = sizeof options, .n_jobs = 2, .progress = map_in_callback, .progress_user = &calls};
    CHECK_OK(pb_parallel_map(a_millisecond, NULL, 200, NULL, 0, NULL, 0, &options));
    CHECK(calls >= 2);
}

int main(void) {
    RUN(a_map_that_succeeds_ends_with_everything_done);
    RUN(it_is_told_now_and_then_and_at_most_twenty_times_a_second);
    RUN(failed_items_are_counted);
    RUN(a_map_that_fails_ends_with_what_was_done);
    RUN(it_may_cancel);
    RUN(a_cancel_that_comes_with_the_last_item_is_too_late);
    RUN(submitted_jobs_tell_too_before_they_are_over);
    RUN(the_callback_may_call_maps);
    CHECK_OK(pb_shutdown());
    return check_result();
}
