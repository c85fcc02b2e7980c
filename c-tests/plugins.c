/* pb_load_plugin: what it loads, and what it says of what it cannot load. */
#include "fake_backend.h"

#define MODULE(name) MODULE_DIR "/" name ".so"

static void check_names(const char *expected) {
    char names[256];
    CHECK_OK(pb_backend_names(names, sizeof names, NULL));
    CHECK_STR(expected, names);
}

TEST(a_file_that_is_not_there_is_named) {
    CHECK_STATUS(pb_load_plugin(MODULE("plugin_nobody_wrote")), PB_ERR_IO);
    CHECK_TEXT(MODULE("plugin_nobody_wrote"));
    CHECK_STATUS(pb_load_plugin(""), PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("empty");
    CHECK_STATUS(pb_load_plugin(NULL), PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("path is NULL");
}

TEST(a_file_that_is_no_library_is_named) {
    CHECK_STATUS(pb_load_plugin("/etc/passwd"), PB_ERR_IO);
    CHECK_TEXT("/etc/passwd");
    CHECK_STATUS(pb_load_plugin(MODULE_DIR), PB_ERR_IO);
}

TEST(a_library_without_the_entry_point_is_no_plugin) {
    CHECK_STATUS(pb_load_plugin(MODULE("plugin_without_entry")), PB_ERR_ABI);
    CHECK_TEXT("plugin_without_entry.so");
    CHECK_TEXT("pb_status pb_plugin_init(void)");
}

static void check_failing_plugin(const char *status, const char *says, pb_status expected, const char *text) {
    setenv("PLUGIN_STATUS", status, 1);
    if (says != NULL)
        setenv("PLUGIN_TEXT", says, 1);
    else
        unsetenv("PLUGIN_TEXT");
    CHECK_STATUS(pb_load_plugin(MODULE("plugin_fails")), expected);
    CHECK_TEXT("plugin_fails.so");
    CHECK_TEXT("pb_plugin_init");
    CHECK_TEXT(text);
}

TEST(a_plugin_that_cannot_start_says_why) {
    check_failing_plugin("-3", "no licence was found", PB_ERR_BACKEND_UNAVAILABLE, "no licence was found");
    check_failing_plugin("-12", NULL, PB_ERR_IO, "returned PB_ERR_IO (-12) without a text");
    check_failing_plugin("-12", "", PB_ERR_IO, "without a text");
    check_failing_plugin("-4711", NULL, PB_ERR_INTERNAL, "-4711");
    check_failing_plugin("2", NULL, PB_ERR_INTERNAL, "PB_DONE (2)"); /* only 0 is success */
    check_names("dask,loky,multiprocessing,ray,sequential,threading");
}

TEST(a_plugin_registers_its_backends) {
    pb_scope scope = 0;
    CHECK_OK(pb_load_plugin(MODULE("plugin_good")));
    check_names("dask,from-plugin,loky,multiprocessing,ray,sequential,threading");
    CHECK_OK(pb_push_backend("from-plugin", 2, 0, NULL, &scope));
    check_map_works();
    CHECK_OK(pb_pop_backend(scope));
}

TEST(a_plugin_is_loaded_once_as_long_as_its_backends_are_there) {
    CHECK_STATUS(pb_load_plugin(MODULE("plugin_good")), PB_ERR_EXISTS);
    CHECK_TEXT("plugin_good.so");
    CHECK_TEXT("'from-plugin'");
    check_names("dask,from-plugin,loky,multiprocessing,ray,sequential,threading");
    CHECK_OK(pb_unregister_backend("from-plugin"));
    check_names("dask,loky,multiprocessing,ray,sequential,threading");
    CHECK_OK(pb_load_plugin(MODULE("plugin_good")));
    check_names("dask,from-plugin,loky,multiprocessing,ray,sequential,threading");
}

int main(void) {
    RUN(a_file_that_is_not_there_is_named);
    RUN(a_file_that_is_no_library_is_named);
    RUN(a_library_without_the_entry_point_is_no_plugin);
    RUN(a_plugin_that_cannot_start_says_why);
    RUN(a_plugin_registers_its_backends);
    RUN(a_plugin_is_loaded_once_as_long_as_its_backends_are_there);
    CHECK_OK(pb_shutdown());
    return check_result();
}
