/* The limits of native libraries inside tasks, seen by two pools of the test's own: one whose count belongs
 * to the process, as most BLAS libraries', and one whose count belongs to the thread, as OpenMP's. */
#include "conformance.h"

enum { MANY = 64, INNER = 3 }; /* more than the machine's share for any worker here, and some other number */

static int32_t process_count = MANY;
static __thread int32_t thread_count = MANY;

static int32_t get_process(void *user) {
    (void)user;
    return __atomic_load_n(&process_count, __ATOMIC_RELAXED);
}
static void set_process(void *user, int32_t n) {
    (void)user;
    __atomic_store_n(&process_count, n, __ATOMIC_RELAXED);
}
static int32_t get_thread(void *user) {
    (void)user;
    return thread_count;
}
static void set_thread(void *user, int32_t n) {
    (void)user;
    thread_count = n;
}

typedef struct counts {
    int32_t process, thread, worker;
} counts;

static int32_t read_counts(void *ctx, size_t index, const void *input, void *output) {
    counts *c = output;
    (void)input;
    c->process = get_process(NULL);
    c->thread = get_thread(NULL);
    c->worker = pb_worker_index();
    return ctx != NULL && index == *(const size_t *)ctx ? 1 : 0;
}

static int32_t capped_by_share(int32_t workers, int32_t worker) {
    const int32_t cpus = pb_cpu_count(0);
    int32_t share = cpus / workers + (worker < cpus % workers);
    share = share > 0 ? share : 1;
    return share < MANY ? share : MANY;
}

static void check_outside(void) {
    CHECK_INT(MANY, process_count);
    CHECK_INT(MANY, thread_count);
}

enum { N = 40 };

TEST(tasks_have_the_inner_limit_that_the_scope_names) {
    counts seen[N];
    pb_scope scope = 0;
    CHECK_OK(pb_push_backend(suite.backend, 2, INNER, suite.params, &scope));
    CHECK_OK(pb_parallel_map(read_counts, NULL, N, NULL, 0, seen, sizeof *seen, NULL));
    CHECK_OK(pb_pop_backend(scope));
    for (size_t i = 0; i < N; ++i) {
        CHECK_INT(INNER, seen[i].process);
        CHECK_INT(INNER, seen[i].thread);
    }
    check_outside();
}

TEST(without_one_libraries_are_held_to_the_share_of_the_worker) {
    counts seen[N];
    const pb_scope scope = use_backend(2);
    const int32_t workers = pb_effective_n_jobs(0);
    const int alone = runs_alone();
    CHECK_OK(pb_parallel_map(read_counts, NULL, N, NULL, 0, seen, sizeof *seen, NULL));
    CHECK_OK(pb_pop_backend(scope));
    for (size_t i = 0; i < N; ++i) {
        /* What all workers share has the smallest of their shares. */
        CHECK_INT(alone ? MANY : capped_by_share(workers, workers - 1), seen[i].process);
        CHECK_INT(alone ? MANY : capped_by_share(workers, seen[i].worker), seen[i].thread);
    }
    check_outside();
}

TEST(limits_end_with_a_map_that_fails) {
    counts seen[N];
    size_t bad = 0;
    pb_scope scope = 0;
    CHECK_OK(pb_push_backend(suite.backend, 2, INNER, suite.params, &scope));
    CHECK_STATUS(pb_parallel_map(read_counts, &bad, N, NULL, 0, seen, sizeof *seen, NULL),
                 PB_ERR_TASK_FAILED);
    CHECK_OK(pb_pop_backend(scope));
    CHECK_INT(INNER, seen[0].process);
    check_outside();
}

static int32_t count_on_worker(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input;
    *(int32_t *)output = get_thread(NULL);
    return 0;
}

/* A worker carries nothing from one map to the next: 40 maps in turn with a limit and with another. */
TEST(each_map_has_its_own_limit) {
    int32_t seen[N];
    for (int32_t round = 0; round < 40; ++round) {
        const int32_t limit = 1 + round % 2;
        pb_scope scope = 0;
        CHECK_OK(pb_push_backend(suite.backend, 2, limit, suite.params, &scope));
        CHECK_OK(pb_parallel_map(count_on_worker, NULL, N, NULL, 0, seen, sizeof *seen, NULL));
        CHECK_OK(pb_pop_backend(scope));
        for (size_t i = 0; i < N; ++i)
            CHECK_INT(limit, seen[i]);
    }
    check_outside();
}

static void register_pools(void) {
    CHECK_OK(
        pb_register_thread_pool("blas", "conformance-process", get_process, set_process, NULL, "process"));
    CHECK_OK(pb_register_thread_pool("blas", "conformance-thread", get_thread, set_thread, NULL, "thread"));
}

/* Inherited: the pools are registered in this process only. */
void test_limits(void) {
    if (suite.inherits)
        register_pools();
    RUN_INHERITED(tasks_have_the_inner_limit_that_the_scope_names);
    RUN_INHERITED(without_one_libraries_are_held_to_the_share_of_the_worker);
    RUN_INHERITED(limits_end_with_a_map_that_fails);
    RUN_INHERITED(each_map_has_its_own_limit);
}
