/* A library that is loaded while limits are in force: as R and Julia packages do, and plugins. */
#include "native_library.h"

static char **arguments;
static int argument_count;
static int at_first; /* the count that the library started with */

static int32_t load_in_task(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    library_load(argument_count, arguments);
    at_first = library.get();
    return 0;
}

static int32_t look(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input;
    *(int *)output = library.used();
    return 0;
}

static int used_in_task(void) {
    pb_map_options options = {.struct_size = sizeof options, .n_jobs = 2};
    int used = 0;
    CHECK_OK(pb_parallel_map(look, NULL, 1, NULL, 0, &used, sizeof used, &options));
    return used;
}

TEST(a_library_that_a_task_loads_is_limited_from_the_next_map_on) {
    pb_scope outer = 0, inner = 0;
    pb_map_options options = {.struct_size = sizeof options, .n_jobs = 2};
    CHECK_OK(pb_push_thread_limit(4, PB_API_ALL, &outer));
    CHECK_OK(pb_push_backend("threading", 2, 1, NULL, &inner));
    CHECK_INT(0, pb_thread_pool_count());
    CHECK_OK(pb_parallel_map(load_in_task, NULL, 1, NULL, 0, NULL, 0, &options));
    CHECK_INT(1, used_in_task());
    CHECK_OK(pb_pop_backend(inner));
    CHECK_OK(pb_pop_thread_limit(outer));
    CHECK_INT(at_first, library.get());
}

TEST(it_is_limited_like_any_other_from_then_on) {
    pb_scope scope = 0;
    CHECK_OK(pb_push_thread_limit(4, PB_API_ALL, &scope));
    CHECK_INT(count_of(4), library.used());
    CHECK_OK(pb_pop_thread_limit(scope));
    CHECK_INT(at_first, library.get());
}

int main(int argc, char **argv) {
    argument_count = argc;
    arguments = argv;
    RUN(a_library_that_a_task_loads_is_limited_from_the_next_map_on);
    RUN(it_is_limited_like_any_other_from_then_on);
    CHECK_OK(pb_shutdown());
    return check_result();
}
