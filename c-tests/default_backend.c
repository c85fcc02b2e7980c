/* The process default: for all threads, where no scope says otherwise. */
#include "counting.h"
#include "scopes.h"

static void set_default(const char *backend, int32_t n_jobs) {
    CHECK_OK(pb_set_default_backend(backend, n_jobs, 0, NULL));
}

static void reset_default(void) { set_default(NULL, 0); }

static void check_in_force(const char *backend, int32_t n_jobs) {
    CHECK_STR(backend, pb_current_backend());
    CHECK_INT(n_jobs, pb_effective_n_jobs(0));
}

TEST(the_default_applies_outside_scopes_until_it_is_reset) {
    set_default("sequential", 4);
    check_in_force("sequential", 1);
    set_default("threading", 3);
    check_in_force("threading", 3);
    reset_default();
    check_in_force("threading", pb_cpu_count(0));
}

/* joblib: test_config.py::test_global_parallel_backend */
TEST(a_default_without_a_backend_sets_the_number_only) {
    set_default(NULL, 3);
    check_in_force("threading", 3);
    set_default(NULL, -1);
    check_in_force("threading", pb_cpu_count(0));
    reset_default();
}

TEST(a_new_default_replaces_the_old_one_altogether) {
    set_default("sequential", 0);
    set_default(NULL, 3);
    check_in_force("threading", 3);
    reset_default();
}

TEST(scopes_win_key_by_key) {
    set_default("threading", 3);
    const pb_scope number = open_scope(NULL, 2);
    check_in_force("threading", 2);
    const pb_scope backend = open_scope("sequential", 0);
    check_in_force("sequential", 1);
    close_scope(backend);
    close_scope(number);
    const pb_scope nothing = open_scope(NULL, 0);
    check_in_force("threading", 3);
    close_scope(nothing);
    reset_default();
}

static pthread_barrier_t turn;

/* Sees what the main thread sets, except inside its own scope. */
static void *watch_the_default(void *unused) {
    check_in_force("threading", pb_cpu_count(0));
    pthread_barrier_wait(&turn);
    pthread_barrier_wait(&turn); /* the default is set */
    check_in_force("sequential", 1);
    const pb_scope scope = open_scope("threading", 3);
    check_in_force("threading", 3);
    close_scope(scope);
    check_in_force("sequential", 1);
    pthread_barrier_wait(&turn);
    pthread_barrier_wait(&turn); /* it is reset */
    check_in_force("threading", pb_cpu_count(0));
    return unused;
}

TEST(all_threads_see_the_default) {
    pthread_t thread;
    CHECK_INT(0, pthread_barrier_init(&turn, NULL, 2));
    CHECK_INT(0, pthread_create(&thread, NULL, watch_the_default, NULL));
    pthread_barrier_wait(&turn);
    set_default("sequential", 0);
    pthread_barrier_wait(&turn);
    pthread_barrier_wait(&turn);
    reset_default();
    pthread_barrier_wait(&turn);
    CHECK_INT(0, pthread_join(thread, NULL));
    pthread_barrier_destroy(&turn);
}

static int32_t check_nested(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    CHECK_STR("threading", pb_current_backend());
    CHECK_INT(pb_effective_n_jobs(-1), pb_effective_n_jobs(0));
    return 0;
}

TEST(inside_tasks_the_nesting_rule_holds_not_the_default) {
    set_default("threading", 50);
    CHECK_OK(map_on(2, check_nested, NULL, 4));
    reset_default();
}

TEST(a_default_that_cannot_be_leaves_the_old_one) {
    set_default("threading", 3);
    CHECK_STATUS(pb_set_default_backend("no-such-backend", 1, 0, NULL), PB_ERR_UNKNOWN_BACKEND);
    CHECK_STATUS(pb_set_default_backend("sequential", 1, -1, NULL), PB_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(pb_set_default_backend("sequential", 1, 0, "key=1"), PB_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(pb_set_default_backend(NULL, 1, 0, "key=1"), PB_ERR_INVALID_ARGUMENT);
    check_in_force("threading", 3);
    reset_default();
}

static int32_t do_nothing(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    return 0;
}

TEST(a_default_holds_a_session_of_its_backend) {
    struct counting counts = {0};
    register_counting("counting", &counts, 0);
    set_default("counting", 2);
    CHECK_INT(1, counts.opened);
    CHECK_INT(2, counts.n_jobs);
    CHECK_OK(map_on(0, do_nothing, NULL, 4));
    CHECK_OK(map_on(0, do_nothing, NULL, 4));
    CHECK_INT(2, counts.ran);
    CHECK_INT(1, counts.opened);
    reset_default();
    CHECK_INT(1, counts.closed);
    CHECK_OK(pb_unregister_backend("counting"));
    CHECK_INT(1, counts.destroyed);
}

/* joblib: test_parallel.py::test_register_parallel_backend, test_overwrite_default_backend */
TEST(a_backend_may_be_registered_as_the_default) {
    struct counting counts = {0};
    register_counting("counting", &counts, PB_BACKEND_MAKE_DEFAULT);
    CHECK_STR("counting", pb_current_backend());
    CHECK_OK(map_on(0, do_nothing, NULL, 4));
    CHECK_INT(1, counts.ran);
    const pb_scope scope = open_scope("threading", 2);
    CHECK_STR("threading", pb_current_backend());
    CHECK_OK(map_on(0, do_nothing, NULL, 4));
    close_scope(scope);
    CHECK_INT(1, counts.ran);

    CHECK_OK(pb_unregister_backend("counting"));
    check_in_force("threading", pb_cpu_count(0));
    CHECK_OK(map_on(0, do_nothing, NULL, 4));
    CHECK_INT(1, counts.ran);
    CHECK_INT(counts.opened, counts.closed);
    CHECK_INT(1, counts.destroyed);
}

static void *map_once(void *unused) {
    CHECK_OK(map_on(0, do_nothing, NULL, 4));
    return unused;
}

TEST(other_threads_use_a_backend_that_was_registered_as_the_default) {
    struct counting counts = {0};
    register_counting("counting", &counts, PB_BACKEND_MAKE_DEFAULT);
    on_another_thread(map_once, NULL);
    CHECK_INT(1, counts.ran);
    CHECK_OK(pb_unregister_backend("counting"));
    CHECK_INT(1, counts.destroyed);
}

int main(void) {
    forget_environment();
    RUN(the_default_applies_outside_scopes_until_it_is_reset);
    RUN(a_default_without_a_backend_sets_the_number_only);
    RUN(a_new_default_replaces_the_old_one_altogether);
    RUN(scopes_win_key_by_key);
    RUN(all_threads_see_the_default);
    RUN(inside_tasks_the_nesting_rule_holds_not_the_default);
    RUN(a_default_that_cannot_be_leaves_the_old_one);
    RUN(a_default_holds_a_session_of_its_backend);
    RUN(a_backend_may_be_registered_as_the_default);
    RUN(other_threads_use_a_backend_that_was_registered_as_the_default);
    CHECK_OK(pb_shutdown());
    return check_result();
}
