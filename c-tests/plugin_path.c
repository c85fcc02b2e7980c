/* Backends that are looked for by name in PB_PLUGIN_PATH, when they are first asked for. Each test runs in a
 * child process: a plugin stays loaded. */
#include "child.h"
#include "scopes.h"

static void set_path(const char *path) { CHECK_INT(0, setenv("PB_PLUGIN_PATH", path, 1)); }

static int32_t count_item(void *count, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    ++*(int *)count;
    return 0;
}

static void check_map_runs(void) {
    int count = 0;
    CHECK_OK(map_on(0, count_item, &count, 10));
    CHECK_INT(10, count);
}

static int is_listed(const char *name) {
    char names[256];
    CHECK_OK(pb_backend_names(names, sizeof names, NULL));
    return strstr(names, name) != NULL;
}

/* joblib: test_parallel.py::test_external_backends */
static void load_for_a_scope(void) {
    set_path(MODULE_DIR);
    CHECK(!is_listed("lazytest"));
    const pb_scope scope = open_scope("lazytest", 2);
    CHECK(is_listed("lazytest"));
    CHECK_STR("lazytest", pb_current_backend());
    check_map_runs();
    close_scope(scope);
    /* It stays loaded, wherever the path leads now. */
    set_path("/nonexistent");
    close_scope(open_scope("lazytest", 2));
}

TEST(a_scope_loads_the_plugin_of_a_backend) { in_child(load_for_a_scope); }

static void load_for_the_environment(void) {
    set_path(MODULE_DIR);
    CHECK_INT(0, setenv("PB_BACKEND", "lazytest", 1));
    CHECK_STR("lazytest", pb_current_backend());
    check_map_runs();
}

TEST(the_environment_may_name_a_backend_of_a_plugin) { in_child(load_for_the_environment); }

static void load_for_the_default(void) {
    set_path(MODULE_DIR);
    CHECK_OK(pb_set_default_backend("lazytest", 0, 0, NULL));
    CHECK_STR("lazytest", pb_current_backend());
    check_map_runs();
}

TEST(the_process_default_may_be_a_backend_of_a_plugin) { in_child(load_for_the_default); }

static void look_in_every_directory(void) {
    set_path("/nonexistent::" MODULE_DIR);
    close_scope(open_scope("lazytest", 2));
}

TEST(the_path_is_a_list_of_directories) { in_child(look_in_every_directory); }

static void *push_lazytest(void *barrier) {
    pthread_barrier_wait(barrier);
    close_scope(open_scope("lazytest", 2));
    return NULL;
}

static void load_from_several_threads(void) {
    enum { THREADS = 4 };
    pthread_t threads[THREADS];
    pthread_barrier_t barrier;
    set_path(MODULE_DIR);
    CHECK_INT(0, pthread_barrier_init(&barrier, NULL, THREADS));
    for (int i = 0; i < THREADS; i++)
        CHECK_INT(0, pthread_create(&threads[i], NULL, push_lazytest, &barrier));
    for (int i = 0; i < THREADS; i++)
        CHECK_INT(0, pthread_join(threads[i], NULL));
}

TEST(several_threads_may_ask_first) {
    for (int i = times(20, 2); i > 0; i--)
        in_child(load_from_several_threads);
}

static void find_nothing(void) {
    pb_scope scope;
    CHECK_STATUS(pb_push_backend("lazytest", 1, 0, NULL, &scope), PB_ERR_UNKNOWN_BACKEND);
    CHECK_TEXT("PB_PLUGIN_PATH");
    set_path("/nonexistent");
    CHECK_STATUS(pb_push_backend("lazytest", 1, 0, NULL, &scope), PB_ERR_UNKNOWN_BACKEND);
    set_path(MODULE_DIR);
    CHECK_STATUS(pb_push_backend("../modules/lazytest", 1, 0, NULL, &scope), PB_ERR_UNKNOWN_BACKEND);
    CHECK(!is_listed("lazytest"));
}

TEST(what_is_not_on_the_path_is_unknown) { in_child(find_nothing); }

static void fail_to_start(void) {
    set_path(MODULE_DIR);
    pb_scope scope;
    for (int i = 0; i < 2; i++) {
        CHECK_STATUS(pb_push_backend("badtest", 1, 0, NULL, &scope), PB_ERR_BACKEND_UNAVAILABLE);
        CHECK_TEXT("libpb_backend_badtest");
        CHECK_TEXT("no licence was found");
    }
    CHECK_STR("threading", pb_current_backend());
}

TEST(a_plugin_that_cannot_start_says_why) { in_child(fail_to_start); }

int main(void) {
    forget_environment();
    RUN(a_scope_loads_the_plugin_of_a_backend);
    RUN(the_environment_may_name_a_backend_of_a_plugin);
    RUN(the_process_default_may_be_a_backend_of_a_plugin);
    RUN(the_path_is_a_list_of_directories);
    RUN(several_threads_may_ask_first);
    RUN(what_is_not_on_the_path_is_unknown);
    RUN(a_plugin_that_cannot_start_says_why);
    return check_result();
}
