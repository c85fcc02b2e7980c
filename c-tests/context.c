/* The scoped choice of backend: what a scope says, what it leaves to the scopes around it, what it refuses.
 */
#include "counted_pool.h"

static int32_t square(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index;
    const int32_t x = *(const int32_t *)input;
    *(int32_t *)output = x * x;
    return 0;
}

/* joblib: test_parallel.py::test_simple_parallel */
TEST(a_map_computes_what_a_loop_does_on_every_backend) {
    const char *const backends[] = {"sequential", "threading"};
    const int32_t n_jobs[] = {1, 2, -1, -2};
    for (size_t i = 0; i < 2; i++) {
        for (size_t j = 0; j < 4; j++) {
            const pb_scope scope = open_scope(backends[i], n_jobs[j]);
            const int32_t inputs[5] = {0, 1, 2, 3, 4};
            int32_t outputs[5] = {-1, -1, -1, -1, -1};
            CHECK_OK(
                pb_parallel_map(square, NULL, 5, inputs, sizeof *inputs, outputs, sizeof *outputs, NULL));
            for (int32_t x = 0; x < 5; x++)
                CHECK_INT(x * x, outputs[x]);
            close_scope(scope);
        }
    }
}

/* joblib: test_parallel.py::test_effective_n_jobs_None, test_effective_n_jobs */
TEST(the_number_of_workers_comes_from_the_scope) {
    const int32_t cpus = pb_cpu_count(0);
    const struct {
        int32_t n_jobs, expected;
    } cases[] = {{3, 3},     {1, 1},         {-1, cpus}, {-2, cpus > 1 ? cpus - 1 : 1},
                 {-1000, 1}, {INT32_MIN, 1}, {0, cpus},  {1000, 1000}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const pb_scope scope = open_scope("threading", cases[i].n_jobs);
        CHECK_INT(cases[i].expected, pb_effective_n_jobs(0));
        close_scope(scope);
    }
}

/* joblib has 1 there; here an unconfigured map uses every CPU. */
TEST(outside_any_scope_it_is_threading_on_all_cpus) {
    CHECK_STR("threading", pb_current_backend());
    CHECK_INT(pb_cpu_count(0), pb_effective_n_jobs(0));
}

TEST(a_number_in_the_question_goes_before_that_of_the_scope) {
    const pb_scope scope = open_scope("threading", 3);
    CHECK_INT(2, pb_effective_n_jobs(2));
    CHECK_INT(pb_cpu_count(0), pb_effective_n_jobs(-1));
    close_scope(scope);
}

TEST(sequential_has_one_worker_whatever_is_asked) {
    const pb_scope scope = open_scope("sequential", 4);
    CHECK_INT(1, pb_effective_n_jobs(0));
    CHECK_INT(1, pb_effective_n_jobs(8));
    CHECK_INT(1, pb_effective_n_jobs(-1));
    close_scope(scope);
}

/* In and out of a scope of three workers, on this thread. */
static void switch_backend(const char *backend) {
    const pb_scope scope = open_scope(backend, 3);
    CHECK_STR(backend, pb_current_backend());
    CHECK_INT(strcmp(backend, "threading") == 0 ? 3 : 1, pb_effective_n_jobs(0));
    close_scope(scope);
    CHECK_STR("threading", pb_current_backend());
    CHECK_INT(pb_cpu_count(0), pb_effective_n_jobs(0));
}

#define SWITCHING_THREADS 4
static pthread_barrier_t all_ready;

static void *keep_switching(void *backend) {
    pthread_barrier_wait(&all_ready);
    for (int i = times(200, 20); i > 0; i--)
        switch_backend(backend);
    return NULL;
}

/* joblib: test_parallel.py::test_backend_context_manager */
TEST(a_scope_sets_backend_and_workers_and_its_end_restores_them) {
    switch_backend("sequential");
    switch_backend("threading");
}

/* joblib: test_parallel.py::test_backend_context_manager, its last part */
TEST(threads_that_switch_at_the_same_time_do_not_disturb_each_other) {
    pthread_t threads[SWITCHING_THREADS];
    CHECK_INT(0, pthread_barrier_init(&all_ready, NULL, SWITCHING_THREADS));
    const pb_scope scope = open_scope("sequential", 1);
    for (int i = 0; i < SWITCHING_THREADS; i++)
        CHECK_INT(0, pthread_create(&threads[i], NULL, keep_switching, i % 2 ? "sequential" : "threading"));
    for (int i = 0; i < SWITCHING_THREADS; i++)
        CHECK_INT(0, pthread_join(threads[i], NULL));
    CHECK_STR("sequential", pb_current_backend());
    close_scope(scope);
    pthread_barrier_destroy(&all_ready);
}

static void *look_from_a_new_thread(void *unused) {
    CHECK_STR("threading", pb_current_backend());
    CHECK_INT(pb_cpu_count(0), pb_effective_n_jobs(0));
    return unused;
}

/* joblib: contexts are local to their thread, and a new thread starts with the default. */
TEST(a_new_thread_does_not_see_the_scopes_of_its_parent) {
    const pb_scope scope = open_scope("sequential", 1);
    on_another_thread(look_from_a_new_thread, NULL);
    close_scope(scope);
}

/* joblib: test_config.py::test_parallel_config_nested, test_parallel_config_no_backend */
TEST(a_scope_without_a_backend_keeps_the_enclosing_one) {
    const pb_scope alone = open_scope(NULL, 2);
    CHECK_STR("threading", pb_current_backend());
    CHECK_INT(2, pb_effective_n_jobs(0));
    close_scope(alone);

    const pb_scope outer = open_scope("sequential", -1);
    const pb_scope inner = open_scope(NULL, 2);
    CHECK_STR("sequential", pb_current_backend());
    close_scope(inner);
    close_scope(outer);
}

/* joblib: test_config.py::test_parallel_config_nested; None there resets the number
 * (test_parallel_config_n_jobs_none), 0 here inherits it. */
TEST(a_scope_without_a_number_keeps_the_enclosing_one_unless_it_names_a_backend) {
    const pb_scope outer = open_scope("threading", 3);
    const pb_scope inherits = open_scope(NULL, 0);
    CHECK_INT(3, pb_effective_n_jobs(0));
    const pb_scope all = open_scope("threading", 0);
    CHECK_INT(pb_cpu_count(0), pb_effective_n_jobs(0));
    close_scope(all);
    close_scope(inherits);
    close_scope(outer);
}

static int32_t read_worker(void *worker, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    *(int32_t *)worker = pb_worker_index();
    return 0;
}

static pthread_barrier_t three_workers;

static int32_t meet_the_others(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    pthread_barrier_wait(&three_workers);
    return 0;
}

/* joblib: test_config.py::test_parallel_config_params_explicit_set */
TEST(a_number_of_the_call_goes_before_that_of_the_scope) {
    const pb_scope scope = open_scope("threading", 1);
    CHECK_INT(0, pthread_barrier_init(&three_workers, NULL, 3));
    CHECK_OK(map_on(3, meet_the_others, NULL, 3)); /* with fewer than three workers it would never end */
    pthread_barrier_destroy(&three_workers);
    close_scope(scope);
}

/* joblib: test_parallel.py::test_main_thread_renamed_no_warning, test_background_thread_parallelism */
static void *map_from_here(void *unused) {
    pthread_setname_np(pthread_self(), "renamed");
    int32_t worker = -1;
    CHECK_OK(map_on(2, read_worker, &worker, 1));
    CHECK_INT(0, worker);
    return unused;
}

TEST(any_thread_may_call_a_map) {
    on_another_thread(map_from_here, NULL);
    map_from_here(NULL);
}

/* joblib: test_config.py::test_parallel_config_constructor_params refuses it: there the limit belongs to a
 * backend. */
TEST(an_inner_limit_needs_no_backend) {
    pb_scope scope;
    CHECK_OK(pb_push_backend(NULL, 0, 3, NULL, &scope));
    CHECK_INT(3, pool_threads_in_a_task());
    close_scope(scope);
    CHECK_INT(8, pool_threads_in_a_task());
}

/* joblib: test_config.py::test_parallel_config_nested, of another key */
TEST(an_inner_limit_is_inherited_until_a_scope_gives_another) {
    pb_scope outer, middle, inner;
    CHECK_OK(pb_push_backend("threading", 2, 3, NULL, &outer));
    CHECK_OK(pb_push_backend("sequential", 0, 0, NULL, &middle));
    CHECK_INT(3, pool_threads_in_a_task());
    CHECK_OK(pb_push_backend(NULL, 0, 2, NULL, &inner));
    CHECK_INT(2, pool_threads_in_a_task());
    close_scope(inner);
    CHECK_INT(3, pool_threads_in_a_task());
    close_scope(middle);
    close_scope(outer);
}

/* What a push with these arguments is refused with; no scope may be left. */
static void check_refused(const char *backend, int32_t inner, const char *params, pb_status status,
                          const char *text) {
    const pb_scope around = open_scope("sequential", 1);
    pb_scope scope = 0;
    CHECK_STATUS(pb_push_backend(backend, 2, inner, params, &scope), status);
    CHECK_TEXT(text);
    CHECK_STR("sequential", pb_current_backend());
    close_scope(around);
    CHECK_STATUS(pb_set_default_backend(backend, 2, inner, params), status);
    CHECK_TEXT(text);
    CHECK_STR("threading", pb_current_backend());
}

/* joblib: test_parallel.py::test_invalid_backend */
TEST(an_unknown_backend_is_refused_with_the_names_of_the_known_ones) {
    check_refused("no-such-backend", 0, NULL, PB_ERR_UNKNOWN_BACKEND, "'no-such-backend'");
    CHECK_TEXT("sequential, threading");
    check_refused("Threading", 0, NULL, PB_ERR_UNKNOWN_BACKEND, "'Threading'");
    check_refused("", 0, NULL, PB_ERR_UNKNOWN_BACKEND, "''");
    check_refused("../threading", 0, NULL, PB_ERR_UNKNOWN_BACKEND, "'../threading'");
}

/* joblib warns and takes its default backend. */
TEST(a_backend_that_is_known_but_missing_here_is_unavailable) {
    /* Its plugin is installed or not, but nobody has started this process as a rank of an MPI job. */
    check_refused("mpi", 0, NULL, PB_ERR_BACKEND_UNAVAILABLE, "'mpi'");
}

TEST(params_must_be_pairs_that_the_backend_knows) {
    check_refused("threading", 0, "stack", PB_ERR_INVALID_ARGUMENT, "'stack' is not key=value");
    check_refused("threading", 0, "no_such_key=1", PB_ERR_INVALID_ARGUMENT, "'no_such_key'");
    check_refused("sequential", 0, " no_such_key = 1 ;", PB_ERR_INVALID_ARGUMENT, "'no_such_key'");
}

TEST(empty_params_are_none) {
    const char *const nothing[] = {"", "  ", ";", " ; ;"};
    for (size_t i = 0; i < 4; i++) {
        pb_scope scope;
        CHECK_OK(pb_push_backend("threading", 2, 0, nothing[i], &scope));
        close_scope(scope);
    }
}

/* joblib: test_config.py::test_parallel_config_constructor_params */
TEST(params_without_a_backend_are_refused) {
    check_refused(NULL, 0, "key=1", PB_ERR_INVALID_ARGUMENT, "'key=1'");
    CHECK_TEXT("name the backend");
}

TEST(an_inner_limit_below_zero_is_refused) {
    check_refused("threading", -1, NULL, PB_ERR_INVALID_ARGUMENT, "inner_max_num_threads is -1");
    check_refused(NULL, INT32_MIN, NULL, PB_ERR_INVALID_ARGUMENT, "inner_max_num_threads");
}

TEST(texts_must_be_utf8) {
    check_refused("thr\xff", 0, NULL, PB_ERR_INVALID_ARGUMENT, "backend is not UTF-8");
    check_refused("threading", 0, "\xff=1", PB_ERR_INVALID_ARGUMENT, "params is not UTF-8");
}

TEST(a_scope_needs_a_place_for_its_token) {
    CHECK_STATUS(pb_push_backend("sequential", 1, 0, NULL, NULL), PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("scope is NULL");
    CHECK_STR("threading", pb_current_backend());
}

TEST(outside_any_task_there_is_no_worker_no_level_and_nothing_to_cancel) {
    CHECK_INT(-1, pb_worker_index());
    CHECK_INT(0, pb_nesting_level());
    CHECK_INT(0, pb_cancelled());
}

int main(void) {
    forget_environment();
    register_counted_pool();
    RUN(a_map_computes_what_a_loop_does_on_every_backend);
    RUN(the_number_of_workers_comes_from_the_scope);
    RUN(outside_any_scope_it_is_threading_on_all_cpus);
    RUN(a_number_in_the_question_goes_before_that_of_the_scope);
    RUN(sequential_has_one_worker_whatever_is_asked);
    RUN(a_scope_sets_backend_and_workers_and_its_end_restores_them);
    RUN(threads_that_switch_at_the_same_time_do_not_disturb_each_other);
    RUN(a_new_thread_does_not_see_the_scopes_of_its_parent);
    RUN(a_scope_without_a_backend_keeps_the_enclosing_one);
    RUN(a_scope_without_a_number_keeps_the_enclosing_one_unless_it_names_a_backend);
    RUN(a_number_of_the_call_goes_before_that_of_the_scope);
    RUN(any_thread_may_call_a_map);
    RUN(an_inner_limit_needs_no_backend);
    RUN(an_inner_limit_is_inherited_until_a_scope_gives_another);
    RUN(an_unknown_backend_is_refused_with_the_names_of_the_known_ones);
    RUN(a_backend_that_is_known_but_missing_here_is_unavailable);
    RUN(params_must_be_pairs_that_the_backend_knows);
    RUN(empty_params_are_none);
    RUN(params_without_a_backend_are_refused);
    RUN(an_inner_limit_below_zero_is_refused);
    RUN(texts_must_be_utf8);
    RUN(a_scope_needs_a_place_for_its_token);
    RUN(outside_any_task_there_is_no_worker_no_level_and_nothing_to_cancel);
    CHECK_OK(pb_shutdown());
    return check_result();
}
