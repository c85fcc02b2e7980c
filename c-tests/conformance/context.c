/* What a task finds around it, and maps inside tasks. */
#include "conformance.h"

#include <unistd.h>

typedef struct sight {
    int32_t level, worker, cpus, cancelled;
    char backend[32];
} sight;

static int32_t look(void *ctx, size_t index, const void *input, void *output) {
    sight *s = output;
    (void)ctx, (void)index, (void)input;
    s->level = pb_nesting_level();
    s->worker = pb_worker_index();
    s->cpus = pb_effective_n_jobs(-1);
    s->cancelled = pb_cancelled();
    snprintf(s->backend, sizeof s->backend, "%s", pb_current_backend());
    return 0;
}

/* CPUs of one worker: the shares of all sum to the whole where there are enough. */
static int32_t share(int32_t workers, int32_t worker) {
    const int32_t cpus = pb_cpu_count(0);
    const int32_t own = cpus / workers + (worker < cpus % workers);
    return own > 0 ? own : 1;
}

TEST(a_task_knows_its_level_its_worker_and_its_share) {
    enum { N = 60 };
    static sight sights[N];
    for (int32_t n_jobs = 2; n_jobs <= 5; ++n_jobs) {
        const pb_scope scope = use_backend(n_jobs);
        const int32_t workers = pb_effective_n_jobs(0);
        const int alone = runs_alone();
        CHECK_OK(pb_parallel_map(look, NULL, N, NULL, 0, sights, sizeof *sights, NULL));
        for (size_t i = 0; i < N; ++i) {
            const sight *s = &sights[i];
            CHECK_INT(alone ? 0 : 1, s->level);
            CHECK(s->worker >= 0 && s->worker < workers);
            CHECK_STR(alone ? suite.backend : "threading", s->backend);
            if (!alone)
                CHECK_INT(share(workers, s->worker), s->cpus);
            CHECK_INT(0, s->cancelled);
        }
        CHECK_INT(0, pb_nesting_level());
        CHECK_INT(-1, pb_worker_index());
        CHECK_STR(suite.backend, pb_current_backend());
        CHECK_OK(pb_pop_backend(scope));
    }
}

TEST(there_are_no_more_workers_than_items) {
    sight sights[2];
    const pb_scope scope = use_backend(7);
    CHECK_OK(pb_parallel_map(look, NULL, 2, NULL, 0, sights, sizeof *sights, NULL));
    for (size_t i = 0; i < 2; ++i)
        CHECK(sights[i].worker >= 0 && sights[i].worker < 2);
    CHECK_OK(pb_pop_backend(scope));
}

enum { MOST_WORKERS = 8 };

/* Of each process that runs tasks: workers in different processes have no memory in common. */
static int32_t busy[MOST_WORKERS];

static int32_t hold_worker_index(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)input, (void)output;
    const int32_t worker = pb_worker_index();
    if (worker < 0 || worker >= MOST_WORKERS)
        return 1;
    if (__atomic_exchange_n(&busy[worker], 1, __ATOMIC_RELAXED) != 0)
        return 2; /* somebody else has it at the same time */
    if (index % 16 == 0)
        usleep(3000); /* meanwhile others overtake it */
    else
        sched_yield();
    __atomic_store_n(&busy[worker], 0, __ATOMIC_RELAXED);
    return 0;
}

TEST(no_two_tasks_have_one_worker_index_at_the_same_time) {
    const pb_scope scope = use_backend(MOST_WORKERS);
    pb_map_options options = {.struct_size = sizeof options};
    options.batch_size = 1; /* on a cluster: many chunks on their way */
    CHECK_OK(
        pb_parallel_map(hold_worker_index, NULL, suite.is_slow ? 200 : 4000, NULL, 0, NULL, 0, &options));
    CHECK_OK(pb_pop_backend(scope));
}

/* ---- maps inside tasks ---- */

enum { FAN = 6, FAN_SUM = 21 /* 1 + 2 + ... + FAN */ };

typedef struct tree {
    int32_t depth;    /* of the maps below this one */
    int32_t n_jobs;   /* that they ask for; 0: none */
    char backend[32]; /* that they push first; "": none */
    char params[200]; /* with these */
} tree;

static int32_t sum_of_leaves(void *ctx, size_t index, const void *input, void *output) {
    tree below = *(const tree *)ctx;
    (void)input;
    int64_t leaves[FAN] = {1}, sum = 0;
    pb_scope scope = 0;
    if (below.depth-- > 0) {
        pb_map_options options = with_ctx_size(sizeof below);
        options.n_jobs = below.n_jobs;
        if (*below.backend && pb_push_backend(below.backend, 2, 0, below.params, &scope) != PB_OK)
            return 1;
        if (pb_parallel_map(sum_of_leaves, &below, FAN, NULL, 0, leaves, sizeof *leaves, &options) != PB_OK)
            return 2;
        if (*below.backend && pb_pop_backend(scope) != PB_OK)
            return 3;
    }
    for (int i = 0; i < FAN; ++i)
        sum += leaves[i];
    *(int64_t *)output = (int64_t)(index + 1) * sum;
    return 0;
}

static void check_tree(tree root) {
    enum { N = 12 };
    int64_t sums[N], expected = 1;
    for (int32_t level = 0; level < root.depth; ++level)
        expected *= FAN_SUM;
    const pb_map_options options = with_ctx_size(sizeof root);
    const pb_scope scope = use_backend(3);
    CHECK_OK(pb_parallel_map(sum_of_leaves, &root, N, NULL, 0, sums, sizeof *sums, &options));
    for (int i = 0; i < N; ++i)
        CHECK_INT((i + 1) * expected, sums[i]);
    CHECK_OK(pb_pop_backend(scope));
}

/* joblib: test_parallel.py::test_nested_parallel_warnings and its kin: the inner map's place is by rule. */
TEST(maps_nest_in_tasks) {
    for (int32_t depth = 0; depth <= 3; ++depth)
        check_tree((tree){.depth = depth});
}

TEST(nested_maps_get_the_workers_that_they_name) { check_tree((tree){.depth = 2, .n_jobs = 2}); }

/* Inherited: the backend may be known in this process only. */
TEST(maps_nest_on_the_backend_itself) {
    tree root = {.depth = 2};
    snprintf(root.backend, sizeof root.backend, "%s", suite.backend);
    snprintf(root.params, sizeof root.params, "%s", suite.params);
    check_tree(root);
}

static int32_t fail_in_inner_map(void *ctx, size_t index, const void *input, void *output) {
    (void)input, (void)output;
    if (*(const int32_t *)ctx == 0)
        return index == 3 ? 7 : 0;
    int32_t inner = 0;
    const pb_map_options options = with_ctx_size(sizeof inner);
    if (pb_parallel_map(fail_in_inner_map, &inner, 5, NULL, 0, NULL, 0, &options) == PB_OK)
        return 0;
    pb_task_fail(pb_last_error());
    pb_error_info info = {.struct_size = sizeof info};
    pb_last_error_info(&info);
    return info.task_code * 100 + (int32_t)info.task_index;
}

TEST(the_error_of_an_inner_map_reaches_its_task) {
    int32_t outer = 1;
    const pb_map_options options = with_ctx_size(sizeof outer);
    const pb_scope scope = use_backend(2);
    CHECK_STATUS(pb_parallel_map(fail_in_inner_map, &outer, 4, NULL, 0, NULL, 0, &options),
                 PB_ERR_TASK_FAILED);
    CHECK_TEXT("item 3 failed with code 7");
    pb_error_info info = {.struct_size = sizeof info};
    CHECK_OK(pb_last_error_info(&info));
    CHECK_INT(703, info.task_code);
    CHECK_OK(pb_pop_backend(scope));
}

void test_context(void) {
    RUN(a_task_knows_its_level_its_worker_and_its_share);
    RUN(there_are_no_more_workers_than_items);
    RUN(no_two_tasks_have_one_worker_index_at_the_same_time);
    RUN(maps_nest_in_tasks);
    RUN(nested_maps_get_the_workers_that_they_name);
    RUN_INHERITED(maps_nest_on_the_backend_itself);
    RUN(the_error_of_an_inner_map_reaches_its_task);
}
