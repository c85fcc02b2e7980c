/* Workers: never more of them than asked for, really as many as asked for, each with an index of its own, at
 * any depth. */
#include "sync.h"

/* What the tasks of one map see of each other. */
typedef struct watch {
    int32_t n_jobs;
    int32_t running, most;
    int32_t taken[8]; /* by worker index */
    size_t items;
} watch;

static int32_t look_around(void *ctx, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    watch *w = ctx;
    const int32_t running = __atomic_add_fetch(&w->running, 1, __ATOMIC_RELAXED);
    int32_t most = __atomic_load_n(&w->most, __ATOMIC_RELAXED);
    while (running > most &&
           !__atomic_compare_exchange_n(&w->most, &most, running, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    const int32_t me = pb_worker_index();
    CHECK(me >= 0);
    CHECK(me < w->n_jobs);
    REQUIRE(me >= 0 && me < 8);
    CHECK_INT(0, __atomic_exchange_n(&w->taken[me], 1, __ATOMIC_RELAXED));
    work_for(20e-6);
    __atomic_store_n(&w->taken[me], 0, __ATOMIC_RELAXED);
    __atomic_fetch_sub(&w->running, 1, __ATOMIC_RELAXED);
    __atomic_fetch_add(&w->items, 1, __ATOMIC_RELAXED);
    return 0;
}

static void check_workers(int32_t n_jobs, size_t n) {
    watch w = {.n_jobs = n_jobs};
    pb_map_options options = {.struct_size = sizeof options, .n_jobs = n_jobs};
    CHECK_OK(pb_parallel_map(look_around, &w, n, NULL, 0, NULL, 0, &options));
    CHECK_INT(n, w.items);
    CHECK(w.most <= n_jobs);
}

TEST(no_more_threads_than_workers_and_indices_are_unique) {
    for (int32_t n_jobs = 1; n_jobs <= 5; n_jobs++)
        check_workers(n_jobs, rounds(1000));
}

static int32_t check_workers_here(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)input, (void)output;
    const int32_t me = pb_worker_index();
    check_workers(1 + (int32_t)(index % 5), 50);
    CHECK_INT(me, pb_worker_index()); /* the inner map's index is gone */
    return 0;
}

TEST(the_same_holds_for_nested_maps) {
    pb_map_options options = {.struct_size = sizeof options, .n_jobs = 3};
    CHECK_OK(pb_parallel_map(check_workers_here, NULL, rounds(30), NULL, 0, NULL, 0, &options));
}

TEST(there_is_no_worker_index_outside_a_task) {
    CHECK_INT(-1, pb_worker_index());
    CHECK_OK(pb_parallel_map(look_around, &(watch){.n_jobs = 1}, 1, NULL, 0, NULL, 0, NULL));
    CHECK_INT(-1, pb_worker_index());
}

/* All must be here at the same time before any goes on. */
typedef struct meeting {
    counter here;
    size_t n;
} meeting;

static int32_t meet(void *ctx, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    meeting *m = ctx;
    counter_raise(&m->here);
    return !counter_wait(&m->here, m->n);
}

/* loky: test_process_executor.py::test_queue_size, more workers than CPUs */
TEST(five_workers_run_five_items_at_once_on_any_machine) {
    pb_map_options options = {.struct_size = sizeof options, .n_jobs = 5};
    for (int again = 0; again < 20; again++) {
        meeting m = {COUNTER, 5};
        CHECK_OK(pb_parallel_map(meet, &m, 5, NULL, 0, NULL, 0, &options));
    }
}

static int32_t meet_nested(void *ctx, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    pb_map_options options = {.struct_size = sizeof options, .n_jobs = 3};
    return pb_parallel_map(meet, ctx, 3, NULL, 0, NULL, 0, &options);
}

TEST(two_times_three_nested_workers_run_six_items_at_once) {
    pb_map_options options = {.struct_size = sizeof options, .n_jobs = 2};
    for (int again = 0; again < 20; again++) {
        meeting m = {COUNTER, 6};
        CHECK_OK(pb_parallel_map(meet_nested, &m, 2, NULL, 0, NULL, 0, &options));
    }
}

/* Callers on two threads do not wait for each other's workers. */
static void *meet_elsewhere(void *ctx) {
    pb_map_options options = {.struct_size = sizeof options, .n_jobs = 3};
    CHECK_OK(pb_parallel_map(meet, ctx, 3, NULL, 0, NULL, 0, &options));
    return NULL;
}

TEST(two_callers_of_three_workers_run_six_items_at_once) {
    for (int again = 0; again < 20; again++) {
        meeting m = {COUNTER, 6};
        pthread_t thread;
        REQUIRE(pthread_create(&thread, NULL, meet_elsewhere, &m) == 0);
        meet_elsewhere(&m);
        pthread_join(thread, NULL);
    }
}

/* A map of depth `depth` inside a lock that only one task of each level can hold. Were a waiting caller to
 * run an item of another map, that item could want the lock that the caller holds. */
typedef struct nest {
    int depth;
    pthread_mutex_t *locks; /* one for each level */
    size_t *leaves;
} nest;

static int32_t descend(void *ctx, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    const nest *here = ctx;
    if (here->depth == 0) {
        __atomic_fetch_add(here->leaves, 1, __ATOMIC_RELAXED);
        return 0;
    }
    nest below = {here->depth - 1, here->locks, here->leaves};
    /* from level 2 on maps are sequential unless they ask */
    pb_map_options options = {.struct_size = sizeof options, .n_jobs = 3, .flags = PB_PREFER_THREADS};
    pthread_mutex_lock(&here->locks[here->depth]);
    const pb_status status = pb_parallel_map(descend, &below, 3, NULL, 0, NULL, 0, &options);
    pthread_mutex_unlock(&here->locks[here->depth]);
    return status;
}

/* joblib: test_parallel.py::test_nested_loop, and deeper */
TEST(maps_nest_to_depth_4_with_a_lock_held_around_each) {
    pthread_mutex_t locks[4];
    for (size_t i = 0; i < 4; i++)
        pthread_mutex_init(&locks[i], NULL);
    const size_t n = rounds(10);
    for (size_t again = 0; again < n; again++) {
        size_t leaves = 0;
        nest top = {3, locks, &leaves};
        pb_map_options options = {.struct_size = sizeof options, .n_jobs = 3};
        CHECK_OK(pb_parallel_map(descend, &top, 3, NULL, 0, NULL, 0, &options));
        CHECK_INT(81, leaves);
    }
}

static int32_t recurse(void *ctx, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    ++*(int *)ctx;
    const pb_status status = pb_parallel_map(recurse, ctx, 1, NULL, 0, NULL, 0, NULL);
    if (status == PB_ERR_UNSUPPORTED)
        CHECK_TEXT("nested");
    return status;
}

/* joblib: test_parallel.py::test_thread_bomb_mitigation */
TEST(recursion_without_end_is_refused) {
    int depth = 0;
    CHECK_STATUS(pb_parallel_map(recurse, &depth, 1, NULL, 0, NULL, 0, NULL), PB_ERR_TASK_FAILED);
    CHECK_INT(100, depth);
}

int main(void) {
    RUN(no_more_threads_than_workers_and_indices_are_unique);
    RUN(the_same_holds_for_nested_maps);
    RUN(there_is_no_worker_index_outside_a_task);
    RUN(five_workers_run_five_items_at_once_on_any_machine);
    RUN(two_times_three_nested_workers_run_six_items_at_once);
    RUN(two_callers_of_three_workers_run_six_items_at_once);
    RUN(maps_nest_to_depth_4_with_a_lock_held_around_each);
    RUN(recursion_without_end_is_refused);
    CHECK_OK(pb_shutdown());
    return check_result();
}
