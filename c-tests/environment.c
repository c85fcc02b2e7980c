/* PB_BACKEND, PB_N_JOBS and PB_INNER_MAX_NUM_THREADS: read at every call, below scopes and the process
 * default. */
#include "counted_pool.h"

static void set(const char *variable, const char *value) { CHECK_INT(0, setenv(variable, value, 1)); }

TEST(variables_choose_where_nobody_else_did) {
    set("PB_BACKEND", "sequential");
    CHECK_STR("sequential", pb_current_backend());
    CHECK_INT(1, pb_effective_n_jobs(0));
    set("PB_BACKEND", "threading");
    set("PB_N_JOBS", "3");
    CHECK_STR("threading", pb_current_backend());
    CHECK_INT(3, pb_effective_n_jobs(0));
    set("PB_N_JOBS", "-2");
    CHECK_INT(pb_cpu_count(0) > 1 ? pb_cpu_count(0) - 1 : 1, pb_effective_n_jobs(0));
    set("PB_INNER_MAX_NUM_THREADS", "2");
    CHECK_INT(2, pool_threads_in_a_task());
}

TEST(empty_is_unset_and_blanks_around_a_value_do_not_matter) {
    set("PB_BACKEND", "");
    set("PB_N_JOBS", " ");
    set("PB_INNER_MAX_NUM_THREADS", "");
    CHECK_STR("threading", pb_current_backend());
    CHECK_INT(pb_cpu_count(0), pb_effective_n_jobs(0));
    CHECK_INT(8, pool_threads_in_a_task());
    set("PB_BACKEND", " sequential ");
    set("PB_N_JOBS", " 3 ");
    CHECK_STR("sequential", pb_current_backend());
    set("PB_BACKEND", "");
    CHECK_INT(3, pb_effective_n_jobs(0));
}

/* joblib: call over context over default, key by key; the environment is the last but the built-in choice. */
TEST(scopes_and_the_process_default_win_key_by_key) {
    set("PB_BACKEND", "sequential");
    set("PB_N_JOBS", "3");
    set("PB_INNER_MAX_NUM_THREADS", "2");
    const pb_scope scope = open_scope(NULL, 5);
    CHECK_STR("sequential", pb_current_backend());
    CHECK_INT(2, pool_threads_in_a_task());
    close_scope(scope);

    CHECK_OK(pb_set_default_backend(NULL, 0, 4, NULL));
    CHECK_INT(4, pool_threads_in_a_task());
    CHECK_STR("sequential", pb_current_backend());
    CHECK_OK(pb_set_default_backend("threading", 0, 0, NULL)); /* a named backend brings "all CPUs" along */
    CHECK_INT(pb_cpu_count(0), pb_effective_n_jobs(0));
    CHECK_INT(2, pool_threads_in_a_task());
    CHECK_OK(pb_set_default_backend(NULL, 0, 0, NULL));
    set("PB_BACKEND", "threading");
    CHECK_INT(3, pb_effective_n_jobs(0));
}

static int32_t check_share(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    CHECK_STR("threading", pb_current_backend());
    CHECK_INT(pb_effective_n_jobs(-1), pb_effective_n_jobs(0));
    return 0;
}

TEST(variables_are_for_outermost_maps_nested_ones_keep_to_their_share) {
    set("PB_N_JOBS", "1000");
    CHECK_OK(map_on(2, check_share, NULL, 4));
    set("PB_N_JOBS", "");
    set("PB_BACKEND", "threading");
    CHECK_OK(map_on(2, check_share, NULL, 4));
}

/* The context cannot be used while `variable` is `value`: every question and every map says so. */
static void check_bad(const char *variable, const char *value, pb_status status) {
    set(variable, value);
    CHECK_STATUS(pb_effective_n_jobs(0), status);
    CHECK_TEXT(variable);
    CHECK_TEXT(value);
    int32_t seen = -1;
    CHECK_STATUS(map_on(0, read_pool_threads, &seen, 1), status);
    CHECK_TEXT(variable);
    CHECK_INT(-1, seen);
    CHECK_STR("", pb_current_backend());
    CHECK_TEXT(variable);
    CHECK(pb_context_capture() == NULL);
    CHECK_TEXT(variable);
    CHECK_INT(0, unsetenv(variable));
    CHECK_STR("threading", pb_current_backend());
}

/* joblib: test_parallel.py::test_invalid_njobs, test_njobs_converted_to_int (2.3 is 2 there) */
TEST(a_bad_number_of_workers_is_an_error_that_names_the_variable) {
    const char *const bad[] = {"0", "0.5", "2.3", "two", "3 4", "99999999999", "\xff"};
    for (size_t i = 0; i + 1 < sizeof bad / sizeof *bad; i++)
        check_bad("PB_N_JOBS", bad[i], PB_ERR_INVALID_ARGUMENT);
    set("PB_N_JOBS", bad[6]); /* no UTF-8: it is shown as well as it can be */
    CHECK_STATUS(pb_effective_n_jobs(0), PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("PB_N_JOBS");
}

TEST(a_bad_inner_limit_is_an_error_that_names_the_variable) {
    const char *const bad[] = {"0", "-1", "1.5", "all"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        check_bad("PB_INNER_MAX_NUM_THREADS", bad[i], PB_ERR_INVALID_ARGUMENT);
}

TEST(a_bad_backend_is_an_error_that_names_the_variable) {
    check_bad("PB_BACKEND", "no-such-backend", PB_ERR_UNKNOWN_BACKEND);
    CHECK_TEXT("sequential, threading");
    check_bad("PB_BACKEND", "mpi", PB_ERR_BACKEND_UNAVAILABLE);
}

TEST(a_variable_that_does_not_apply_is_not_looked_at) {
    set("PB_BACKEND", "no-such-backend");
    set("PB_N_JOBS", "two");
    const pb_scope scope = open_scope("threading", 3);
    CHECK_STR("threading", pb_current_backend());
    CHECK_INT(3, pb_effective_n_jobs(0));
    CHECK_OK(map_on(2, check_share, NULL, 4));
    close_scope(scope);
}

TEST(where_this_thread_stands_does_not_depend_on_variables) {
    CHECK_STATUS(pb_pop_backend(0), PB_ERR_SCOPE);
    set("PB_N_JOBS", "two");
    CHECK_INT(0, pb_nesting_level());
    CHECK_INT(-1, pb_worker_index());
    CHECK_INT(0, pb_cancelled());
    CHECK_TEXT("0 is never a scope");
}

#define RUN_ALONE(name) (forget_environment(), RUN(name))

int main(void) {
    register_counted_pool();
    RUN_ALONE(variables_choose_where_nobody_else_did);
    RUN_ALONE(empty_is_unset_and_blanks_around_a_value_do_not_matter);
    RUN_ALONE(scopes_and_the_process_default_win_key_by_key);
    RUN_ALONE(variables_are_for_outermost_maps_nested_ones_keep_to_their_share);
    RUN_ALONE(a_bad_number_of_workers_is_an_error_that_names_the_variable);
    RUN_ALONE(a_bad_inner_limit_is_an_error_that_names_the_variable);
    RUN_ALONE(a_bad_backend_is_an_error_that_names_the_variable);
    RUN_ALONE(a_variable_that_does_not_apply_is_not_looked_at);
    RUN_ALONE(where_this_thread_stands_does_not_depend_on_variables);
    CHECK_OK(pb_shutdown());
    return check_result();
}
