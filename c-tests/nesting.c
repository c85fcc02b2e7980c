/* Maps inside tasks: the backend and the level that they find, and where nesting ends. */
#include "scopes.h"

#include <unistd.h>

static const char *const backends[] = {"sequential", "threading"};

/* What pb_effective_n_jobs says inside a scope of `backend` with `n_jobs` > 0. */
static int32_t workers_of(const char *backend, int32_t n_jobs) {
    return strcmp(backend, "sequential") == 0 ? 1 : n_jobs;
}

struct child {
    const char *backend;
    int32_t n_jobs;
};

static int32_t count_item(void *counter, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    __atomic_fetch_add((int *)counter, 1, __ATOMIC_RELAXED);
    return 0;
}

static int32_t run_child(void *ctx, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    const struct child *child = ctx;
    const pb_scope scope = open_scope(child->backend, child->n_jobs);
    CHECK_INT(workers_of(child->backend, child->n_jobs), pb_effective_n_jobs(0));
    int done = 0;
    CHECK_OK(map_on(0, count_item, &done, 5));
    CHECK_INT(5, done);
    close_scope(scope);
    return 0;
}

/* joblib: test_parallel.py::test_nested_loop, test_nested_parallel_warnings (no pair is refused or reduced
 * here) */
TEST(every_backend_runs_inside_every_other) {
    for (int parent = 0; parent < 2; parent++) {
        for (int inside = 0; inside < 2; inside++) {
            for (int32_t n_jobs = 1; n_jobs <= 2; n_jobs++) {
                struct child child = {backends[inside], n_jobs};
                const pb_scope scope = open_scope(backends[parent], 2);
                CHECK_OK(map_on(0, run_child, &child, 10));
                close_scope(scope);
            }
        }
    }
}

static pthread_barrier_t two_workers;

static int32_t fail_or_nest(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)input, (void)output;
    pthread_barrier_wait(&two_workers);
    if (index == 1)
        return 7;
    int done = 0;
    const pb_status status = map_on(2, count_item, &done, 1000);
    CHECK(status == PB_OK || status == PB_ERR_CANCELLED);
    return status;
}

/* joblib: test_parallel.py::test_nested_loop_with_exception_with_loky */
TEST(a_task_fails_while_another_runs_a_nested_map) {
    CHECK_INT(0, pthread_barrier_init(&two_workers, NULL, 2));
    for (int i = times(50, 5); i > 0; i--) {
        CHECK_STATUS(map_on(2, fail_or_nest, NULL, 2), PB_ERR_TASK_FAILED);
        pb_error_info info = {.struct_size = sizeof info};
        CHECK_OK(pb_last_error_info(&info));
        CHECK_INT(1, info.task_index);
        CHECK_INT(7, info.task_code);
    }
    pthread_barrier_destroy(&two_workers);
}

static int32_t check_process(void *pid, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    CHECK_INT(*(pid_t *)pid, getpid());
    CHECK_INT(2, pb_nesting_level());
    return 0;
}

static int32_t check_nested_default(void *pid, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    CHECK_STR("threading", pb_current_backend());
    CHECK_INT(1, pb_nesting_level());
    CHECK_INT(pb_effective_n_jobs(-1), pb_effective_n_jobs(0));
    CHECK_OK(map_on(2, check_process, pid, 2));
    return 0;
}

/* joblib: test_parallel.py::test_nested_backend_context_manager; its default there is one worker, here the
 * CPUs of the task's share. */
TEST(maps_inside_a_task_default_to_threads_of_this_process) {
    pid_t pid = getpid();
    const pb_scope scope = open_scope("threading", 3);
    CHECK_OK(map_on(0, check_nested_default, &pid, 10));
    CHECK_OK(map_on(2, check_nested_default, &pid, 10));
    close_scope(scope);
}

static int32_t check_unchanged(void *ctx, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    const struct child *expected = ctx;
    CHECK_STR(expected->backend, pb_current_backend());
    CHECK_INT(expected->n_jobs, pb_effective_n_jobs(0));
    CHECK_INT(0, pb_nesting_level());
    CHECK_INT(0, pb_worker_index());
    return 0;
}

/* joblib: test_parallel.py::test_nested_backend_in_sequential */
TEST(a_map_with_one_worker_leaves_the_choice_as_it_is) {
    struct child unconfigured = {"threading", pb_cpu_count(0)};
    CHECK_OK(map_on(1, check_unchanged, &unconfigured, 10));
    const int32_t n_jobs[] = {2, -1, 5};
    for (int i = 0; i < 2; i++) {
        for (int j = 0; j < 3; j++) {
            const pb_scope scope = open_scope(backends[i], n_jobs[j]);
            struct child expected = {backends[i], pb_effective_n_jobs(0)};
            CHECK_OK(map_on(1, check_unchanged, &expected, 10));
            close_scope(scope);
        }
    }
}

static int32_t submitted_map_sees(void *ctx, size_t index, const void *input, void *output) {
    return check_unchanged(ctx, index, input, output);
}

TEST(nor_does_it_when_it_was_submitted) {
    for (int i = 0; i < 2; i++) {
        const pb_scope scope = open_scope(backends[i], 5);
        struct child expected = {backends[i], pb_effective_n_jobs(0)};
        pb_map_options options = {.struct_size = sizeof options};
        options.n_jobs = 1;
        pb_job *job = NULL;
        CHECK_OK(pb_submit_map(submitted_map_sees, &expected, 10, NULL, 0, NULL, 0, &options, &job));
        close_scope(scope);
        /* Only looking leaves the job to the library's threads. */
        pb_status status;
        while ((status = pb_job_wait(job, 1)) == PB_PENDING) {
        }
        CHECK_OK(status);
        pb_job_free(job);
    }
}

struct level {
    const char *backend;
    int32_t level;
};

static int32_t check_level(void *ctx, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    const struct level *expected = ctx;
    CHECK_INT(expected->level, pb_nesting_level());
    const pb_scope scope = open_scope(expected->backend, 2);
    CHECK_INT(expected->level, pb_nesting_level());
    close_scope(scope);
    return 0;
}

/* joblib: test_parallel.py::test_backend_nesting_level */
TEST(the_level_counts_the_parallel_maps_around_whatever_scopes_say) {
    for (int outer = 0; outer < 2; outer++) {
        for (int inner = 0; inner < 2; inner++) {
            /* joblib counts levels of its sequential backend only when two workers were asked for. */
            struct level expected = {backends[inner], outer == 0 ? 0 : 1};
            const pb_scope scope = open_scope(backends[outer], 2);
            CHECK_INT(0, pb_nesting_level());
            CHECK_OK(map_on(0, check_level, &expected, 10));
            close_scope(scope);
        }
    }
}

#define LEVELS 4

struct descent {
    char backend[LEVELS][32];
    int32_t level[LEVELS];
    int reached;
};

static int32_t descend(void *ctx, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    struct descent *descent = ctx;
    const int here = descent->reached++;
    snprintf(descent->backend[here], sizeof *descent->backend, "%s", pb_current_backend());
    descent->level[here] = pb_nesting_level();
    return here + 1 < LEVELS ? map_on(2, descend, descent, 1) : 0;
}

/* joblib: test_parallel.py::test_nested_parallelism_limit */
TEST(below_level_one_maps_are_sequential) {
    struct descent descent = {.reached = 0};
    const pb_scope scope = open_scope("threading", 2);
    CHECK_INT(0, descend(&descent, 0, NULL, NULL));
    close_scope(scope);
    CHECK_INT(LEVELS, descent.reached);
    const struct level expected[LEVELS] = {
        {"threading", 0}, {"threading", 1}, {"sequential", 2}, {"sequential", 2}};
    for (int i = 0; i < LEVELS; i++) {
        CHECK_STR(expected[i].backend, descent.backend[i]);
        CHECK_INT(expected[i].level, descent.level[i]);
    }
}

static int32_t nest_three_deep(void *ctx, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    CHECK_INT(*(int32_t *)ctx, pb_nesting_level());
    if (*(int32_t *)ctx == 3)
        return 0;
    int32_t next = *(int32_t *)ctx + 1;
    const pb_scope scope = open_scope("threading", 2);
    CHECK_OK(map_on(0, nest_three_deep, &next, 2));
    close_scope(scope);
    return 0;
}

TEST(a_scope_inside_a_task_makes_deeper_maps_parallel_all_the_same) {
    int32_t level = 0;
    CHECK_INT(0, nest_three_deep(&level, 0, NULL, NULL));
}

static int32_t recurse_without_end(void *ctx, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    const pb_status status = map_on(0, recurse_without_end, ctx, 2);
    CHECK(status != PB_OK);
    if (status == PB_ERR_UNSUPPORTED)
        CHECK_TEXT("nested");
    return status;
}

/* joblib: test_parallel.py::test_thread_bomb_mitigation */
TEST(recursion_without_end_is_an_error_and_no_thread_bomb) {
    for (int i = 0; i < 2; i++) {
        const pb_scope scope = open_scope(backends[i], 2);
        pb_error_info info = {.struct_size = sizeof info};
        CHECK_STATUS(map_on(0, recurse_without_end, NULL, 2), PB_ERR_TASK_FAILED);
        CHECK_OK(pb_last_error_info(&info));
        CHECK_INT(PB_ERR_TASK_FAILED, info.task_code);
        close_scope(scope);
    }
    /* Two workers that divide the CPUs; idle threads that are not yet busy again may be doubled. */
    CHECK(count_threads() <= 4 * pb_cpu_count(0) + 8);
}

static int32_t recurse_with_scopes(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    const pb_scope scope = open_scope("threading", 2);
    const pb_status status = map_on(0, recurse_with_scopes, NULL, 1);
    close_scope(scope);
    return status;
}

/* Each level wants a second worker, and none needs it: the recursion ends at the same depth. */
TEST(nor_is_recursion_that_asks_for_threads_at_every_level) {
    CHECK_STATUS(map_on(2, recurse_with_scopes, NULL, 1), PB_ERR_TASK_FAILED);
    CHECK(count_threads() <= 4 * pb_cpu_count(0) + 8);
}

/* The innermost call says what is wrong, directly. */
static int32_t dive(void *depth, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    ++*(int *)depth;
    const pb_status status = map_on(0, dive, depth, 1);
    if (status == PB_ERR_UNSUPPORTED)
        CHECK_TEXT("nested 100 deep");
    return 0;
}

TEST(sequential_maps_count_for_the_depth) {
    int depth = 0;
    const pb_scope scope = open_scope("sequential", 1);
    CHECK_OK(map_on(0, dive, &depth, 1));
    close_scope(scope);
    CHECK_INT(100, depth);
}

int main(void) {
    forget_environment();
    RUN(every_backend_runs_inside_every_other);
    RUN(a_task_fails_while_another_runs_a_nested_map);
    RUN(maps_inside_a_task_default_to_threads_of_this_process);
    RUN(a_map_with_one_worker_leaves_the_choice_as_it_is);
    RUN(nor_does_it_when_it_was_submitted);
    RUN(the_level_counts_the_parallel_maps_around_whatever_scopes_say);
    RUN(below_level_one_maps_are_sequential);
    RUN(a_scope_inside_a_task_makes_deeper_maps_parallel_all_the_same);
    RUN(recursion_without_end_is_an_error_and_no_thread_bomb);
    RUN(nor_is_recursion_that_asks_for_threads_at_every_level);
    RUN(sequential_maps_count_for_the_depth);
    CHECK_OK(pb_shutdown());
    return check_result();
}
