/* pb_job_next: items as they finish, in order or not, as a generator would give them. */
#include "sync.h"

static pb_job *submit(pb_task_fn fn, void *ctx, size_t n, int32_t n_jobs, uint32_t flags) {
    pb_map_options options = {.struct_size = sizeof options, .n_jobs = n_jobs, .flags = flags};
    pb_job *job = NULL;
    REQUIRE(pb_submit_map(fn, ctx, n, NULL, 0, NULL, 0, &options, &job) == PB_OK);
    return job;
}

static int32_t nothing(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    return 0;
}

/* joblib: test_parallel.py::test_parallel_return_order_with_return_as_generator_parameter */
TEST(items_come_in_index_order) {
    const int32_t n_jobs[] = {1, 2, 4};
    for (size_t j = 0; j < 3; j++) {
        pb_job *job = submit(nothing, NULL, 1000, n_jobs[j], 0);
        size_t index, n = 0;
        while (pb_job_next(job, -1, &index) == PB_OK)
            CHECK_INT(n++, index);
        CHECK_INT(1000, n);
        CHECK_STATUS(pb_job_next(job, -1, &index), PB_DONE);
        CHECK_STATUS(pb_job_next(job, 0, &index), PB_DONE);
        CHECK_OK(pb_job_wait(job, -1));
        pb_job_free(job);
    }
}

TEST(unordered_items_come_once_each) {
    const int32_t n_jobs[] = {1, 2, 4};
    for (size_t j = 0; j < 3; j++) {
        pb_job *job = submit(nothing, NULL, 1000, n_jobs[j], PB_UNORDERED);
        char given[1000] = {0};
        size_t index, n = 0;
        for (; pb_job_next(job, -1, &index) == PB_OK; n++) {
            REQUIRE(index < 1000);
            CHECK_INT(0, given[index]++);
        }
        CHECK_INT(1000, n);
        CHECK_STATUS(pb_job_next(job, -1, &index), PB_DONE);
        pb_job_free(job);
    }
}

TEST(a_stream_of_nothing_is_done_at_once) {
    size_t index = 5;
    for (uint32_t flags = 0; flags <= PB_UNORDERED; flags += PB_UNORDERED) {
        pb_job *job = submit(nothing, NULL, 0, 2, flags);
        CHECK_STATUS(pb_job_next(job, 0, &index), PB_DONE);
        CHECK_INT(5, index);
        CHECK_OK(pb_job_wait(job, -1));
        pb_job_free(job);
    }
}

/* Item `last` ends only when the consumer says so. */
typedef struct held {
    size_t last;
    counter let_go;
} held;

static int32_t hold_one(void *ctx, size_t index, const void *input, void *output) {
    (void)input, (void)output;
    held *h = ctx;
    return index == h->last && !counter_wait(&h->let_go, 1);
}

/* joblib: test_parallel.py::test_parallel_unordered_generator_returns_fastest_first */
TEST(nine_quick_items_come_before_the_slow_one) {
    held h = {0, COUNTER};
    pb_job *job = submit(hold_one, &h, 10, 2, PB_UNORDERED);
    size_t index;
    for (size_t i = 0; i < 9; i++) {
        CHECK_OK(pb_job_next(job, PATIENCE, &index));
        CHECK(index != 0);
    }
    CHECK_STATUS(pb_job_next(job, 0, &index), PB_PENDING);
    counter_raise(&h.let_go);
    CHECK_OK(pb_job_next(job, -1, &index));
    CHECK_INT(0, index);
    CHECK_STATUS(pb_job_next(job, -1, &index), PB_DONE);
    pb_job_free(job);
}

/* The same in order: nothing comes before the slow first item, whatever has finished behind it. */
TEST(an_ordered_stream_waits_for_its_head) {
    held h = {0, COUNTER};
    pb_job *job = submit(hold_one, &h, 10, 2, 0);
    size_t index = 77;
    CHECK_STATUS(pb_job_next(job, 0.01, &index), PB_PENDING);
    CHECK_STATUS(pb_job_next(job, 0, &index), PB_PENDING);
    CHECK_INT(77, index);
    counter_raise(&h.let_go);
    for (size_t i = 0; i < 10; i++) {
        CHECK_OK(pb_job_next(job, -1, &index));
        CHECK_INT(i, index);
    }
    pb_job_free(job);
}

/* The head comes as soon as it is done, while a later item still runs. */
TEST(an_ordered_stream_hands_out_its_head_at_once) {
    held h = {9, COUNTER};
    pb_job *job = submit(hold_one, &h, 10, 1, 0);
    size_t index;
    for (size_t i = 0; i < 9; i++) {
        CHECK_OK(pb_job_next(job, PATIENCE, &index));
        CHECK_INT(i, index);
    }
    CHECK_STATUS(pb_job_wait(job, 0), PB_PENDING);
    counter_raise(&h.let_go);
    CHECK_OK(pb_job_wait(job, -1));
    pb_job_free(job);
}

static int32_t fail_at_5(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)input, (void)output;
    return index == 5 ? 50 : 0;
}

TEST(a_failure_comes_after_the_items_that_finished_before_it) {
    for (uint32_t flags = 0; flags <= PB_UNORDERED; flags += PB_UNORDERED) {
        pb_job *job = submit(fail_at_5, NULL, 10, 1, flags);
        size_t index;
        for (size_t i = 0; i < 5; i++) {
            CHECK_OK(pb_job_next(job, -1, &index));
            CHECK_INT(i, index);
        }
        for (int again = 0; again < 2; again++) {
            CHECK_STATUS(pb_job_next(job, -1, &index), PB_ERR_TASK_FAILED);
            CHECK_INT(5, last_info().task_index);
        }
        pb_job_free(job);
    }
}

TEST(failed_items_are_handed_out_too_where_errors_are_collected) {
    for (uint32_t flags = 0; flags <= PB_UNORDERED; flags += PB_UNORDERED) {
        int32_t statuses[10];
        pb_map_options options = {.struct_size = sizeof options,
                                  .n_jobs = 2,
                                  .flags = flags | PB_COLLECT_ERRORS,
                                  .statuses = statuses};
        pb_job *job;
        REQUIRE(pb_submit_map(fail_at_5, NULL, 10, NULL, 0, NULL, 0, &options, &job) == PB_OK);
        size_t index, n = 0;
        for (; pb_job_next(job, -1, &index) == PB_OK; n++)
            CHECK_INT(index == 5 ? 50 : 0, statuses[index]); /* readable as soon as the item is handed out */
        CHECK_INT(10, n);
        CHECK_STATUS(pb_job_next(job, -1, &index), PB_DONE);
        CHECK_STATUS(pb_job_wait(job, -1), PB_ERR_TASK_FAILED);
        pb_job_free(job);
    }
}

typedef struct block {
    double values[4096];
} block;

static int32_t fill(void *ctx, size_t index, const void *input, void *output) {
    (void)input;
    counter_raise(ctx);
    for (size_t i = 0; i < 4096; i++)
        ((block *)output)->values[i] = (double)index;
    return 0;
}

/* joblib: test_parallel.py::test_deadlock_with_generator */
TEST(a_half_read_stream_with_large_results_can_be_dropped) {
    enum { N = 200 };
    for (uint32_t flags = 0; flags <= PB_UNORDERED; flags += PB_UNORDERED) {
        block *blocks = malloc(N * sizeof *blocks);
        counter calls = COUNTER;
        pb_map_options options = {.struct_size = sizeof options, .n_jobs = 2, .flags = flags};
        pb_job *job;
        REQUIRE(pb_submit_map(fill, &calls, N, NULL, 0, blocks, sizeof *blocks, &options, &job) == PB_OK);
        size_t index;
        CHECK_OK(pb_job_next(job, -1, &index));
        CHECK(blocks[index].values[4095] == (double)index);
        pb_job_free(job);
        const size_t after = counter_get(&calls);
        memset(blocks, 0, N * sizeof *blocks); /* nobody else writes there any more */
        free(blocks);
        CHECK_INT(after, counter_get(&calls));
    }
}

/* joblib: test_parallel.py::test_multiple_generator_call_separated and ..._gc: one of two streams is dropped
 * half-read */
TEST(streams_do_not_disturb_each_other) {
    const size_t n = rounds(20);
    for (size_t again = 0; again < n; again++) {
        pb_job *kept = submit(nothing, NULL, 500, 2, 0),
               *dropped = submit(nothing, NULL, 500, 2, PB_UNORDERED);
        size_t index;
        for (size_t i = 0; i < 500; i++) {
            CHECK_OK(pb_job_next(kept, -1, &index));
            CHECK_INT(i, index);
            if (i < 10)
                CHECK_OK(pb_job_next(dropped, -1, &index));
            if (i == 10)
                pb_job_free(dropped);
        }
        CHECK_OK(pb_job_wait(kept, -1));
        pb_job_free(kept);
    }
}

typedef struct readers {
    pb_job *job;
    char given[1000];
    size_t n;
} readers;

static void *read_some(void *arg) {
    readers *r = arg;
    size_t index;
    pb_status status;
    while ((status = pb_job_next(r->job, -1, &index)) == PB_OK) {
        REQUIRE(index < 1000);
        CHECK_INT(0, __atomic_exchange_n(&r->given[index], 1, __ATOMIC_RELAXED));
        __atomic_fetch_add(&r->n, 1, __ATOMIC_RELAXED);
    }
    CHECK_INT(PB_DONE, status);
    return NULL;
}

TEST(several_threads_may_read_one_stream) {
    for (uint32_t flags = 0; flags <= PB_UNORDERED; flags += PB_UNORDERED) {
        readers r = {.job = submit(nothing, NULL, 1000, 2, flags)};
        pthread_t threads[4];
        for (size_t i = 0; i < 4; i++)
            REQUIRE(pthread_create(&threads[i], NULL, read_some, &r) == 0);
        for (size_t i = 0; i < 4; i++)
            pthread_join(threads[i], NULL);
        CHECK_INT(1000, r.n);
        pb_job_free(r.job);
    }
}

int main(void) {
    RUN(items_come_in_index_order);
    RUN(unordered_items_come_once_each);
    RUN(a_stream_of_nothing_is_done_at_once);
    RUN(nine_quick_items_come_before_the_slow_one);
    RUN(an_ordered_stream_waits_for_its_head);
    RUN(an_ordered_stream_hands_out_its_head_at_once);
    RUN(a_failure_comes_after_the_items_that_finished_before_it);
    RUN(failed_items_are_handed_out_too_where_errors_are_collected);
    RUN(a_half_read_stream_with_large_results_can_be_dropped);
    RUN(streams_do_not_disturb_each_other);
    RUN(several_threads_may_read_one_stream);
    CHECK_OK(pb_shutdown());
    return check_result();
}
