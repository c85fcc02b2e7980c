/* Which tasks worker processes can run when the program is not one of them: it does not call pb_worker_main.
 */
#include "copy_file.h"
#include "sync.h"

#include <dlfcn.h>
#include <sys/stat.h>
#include <unistd.h>

static int32_t in_program(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    return 0;
}

TEST(a_task_of_the_program_is_refused_with_both_ways_out) {
    CHECK_STATUS(pb_parallel_map(in_program, NULL, 4, NULL, 0, NULL, 0, NULL), PB_ERR_TASK_NOT_PORTABLE);
    CHECK_TEXT("pb_worker_main");
    CHECK_TEXT("shared library");
}

static char folder[] = "/tmp/pb-tasks-XXXXXX";
static char library[64], built_anew[64];
static void *handle;

/* The address of a function, without the cast that C99 does not know. */
static pb_task_fn find(const char *name) {
    pb_task_fn function = NULL;
    void *symbol = dlsym(handle, name);
    memcpy(&function, &symbol, sizeof function);
    CHECK(function != NULL);
    return function;
}

enum { N = 20 };

static pb_status map_twice(pb_task_fn twice, int64_t outputs[N]) {
    int64_t inputs[N];
    for (int64_t i = 0; i < N; ++i)
        inputs[i] = i;
    return pb_parallel_map(twice, NULL, N, inputs, sizeof *inputs, outputs, sizeof *outputs, NULL);
}

TEST(a_function_of_a_library_is_found_exported_or_static) {
    int64_t outputs[N];
    CHECK_OK(map_twice(find("twice"), outputs));
    for (int64_t i = 0; i < N; ++i)
        CHECK_INT(2 * i, outputs[i]);
    pb_task_fn (*static_task)(void) = NULL;
    void *symbol = dlsym(handle, "static_task");
    memcpy(&static_task, &symbol, sizeof static_task);
    /* It calls the library too, and finds the one that runs it. */
    CHECK_OK(pb_parallel_map(static_task(), NULL, N, NULL, 0, outputs, sizeof *outputs, NULL));
    for (int64_t i = 0; i < N; ++i)
        CHECK_INT(1, outputs[i]);
}

TEST(a_ctx_without_its_size_is_refused) {
    int64_t ctx = 0;
    CHECK_STATUS(pb_parallel_map(find("twice"), &ctx, 4, NULL, 0, NULL, 0, NULL), PB_ERR_TASK_NOT_PORTABLE);
    CHECK_TEXT("ctx_size");
}

/* A preference is no order: a task that cannot be sent runs where it can. */
TEST(where_processes_are_only_preferred_both_run) {
    int64_t ctx = 0, outputs[N];
    const pb_map_options options = {.struct_size = sizeof options, .flags = PB_PREFER_PROCESSES};
    CHECK_OK(pb_parallel_map(in_program, &ctx, 4, NULL, 0, NULL, 0, &options));
    CHECK_OK(map_twice(find("twice"), outputs));
}

/* The caller has the old code mapped; workers would load the new one. */
TEST(a_library_that_was_built_anew_meanwhile_is_refused) {
    int64_t outputs[N] = {0};
    CHECK_OK(pb_shutdown());
    copy_file(MODULE_DIR "/tasks_second.so", built_anew);
    CHECK_INT(0, rename(built_anew, library));
    CHECK_STATUS(map_twice(find("twice"), outputs), PB_ERR_TASK_NOT_PORTABLE);
    CHECK_TEXT("another build");
    CHECK_TEXT(library);
    CHECK_INT(0, outputs[1]);
    CHECK_INT(0, unlink(library));
    CHECK_OK(pb_shutdown());
    CHECK_STATUS(map_twice(find("twice"), outputs), PB_ERR_TASK_NOT_PORTABLE);
    CHECK_TEXT("cannot load");
}

int main(void) {
    CHECK(mkdtemp(folder) != NULL);
    snprintf(library, sizeof library, "%s/libtasks.so", folder);
    snprintf(built_anew, sizeof built_anew, "%s/libtasks.so.new", folder);
    copy_file(MODULE_DIR "/tasks_first.so", library);
    handle = dlopen(library, RTLD_NOW);
    REQUIRE(handle != NULL);
    RUN(where_processes_are_only_preferred_both_run);
    const pb_scope scope = use_backend("loky", 2);
    RUN(a_task_of_the_program_is_refused_with_both_ways_out);
    RUN(a_function_of_a_library_is_found_exported_or_static);
    RUN(a_ctx_without_its_size_is_refused);
    RUN(a_library_that_was_built_anew_meanwhile_is_refused);
    CHECK_OK(pb_pop_backend(scope));
    rmdir(folder);
    CHECK_OK(pb_shutdown());
    return check_result();
}
