/* OMP_NUM_THREADS=1, set by the user before the program starts: OpenMP and OpenBLAS read it when they are
 * loaded. */
#include "native_library.h"

static int32_t look(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input;
    *(int *)output = library.get() == library.used() ? library.get() : -1;
    return 0;
}

/* What the only task of a map with two workers sees: its share are two CPUs, where there are two. */
static int look_in_task(void) {
    pb_map_options options = {.struct_size = sizeof options, .n_jobs = 2};
    int seen = 0;
    CHECK_OK(pb_parallel_map(look, NULL, 1, NULL, 0, &seen, sizeof seen, &options));
    return seen;
}

TEST(a_share_of_the_cpus_does_not_raise_the_users_count) {
    CHECK_INT(1, library.get());
    CHECK_INT(1, look_in_task());
    CHECK_INT(1, library.get());
}

/* joblib: test_parallel.py::test_threadpool_limitation_in_child_override */
TEST(a_number_that_is_named_overrides_the_variable) {
    pb_scope scope = 0;
    CHECK_OK(pb_push_backend(NULL, 0, 4, NULL, &scope));
    CHECK_INT(count_of(4), look_in_task());
    CHECK_OK(pb_pop_backend(scope));
    CHECK_INT(1, library.get());
    CHECK_INT(1, library.used());
}

TEST(so_does_the_librarys_own_variable) {
    setenv("PB_INNER_MAX_NUM_THREADS", "2", 1);
    CHECK_INT(count_of(2), look_in_task());
    unsetenv("PB_INNER_MAX_NUM_THREADS");
    CHECK_INT(1, library.used());
}

int main(int argc, char **argv) {
    library_load(argc, argv);
    RUN(a_share_of_the_cpus_does_not_raise_the_users_count);
    RUN(a_number_that_is_named_overrides_the_variable);
    RUN(so_does_the_librarys_own_variable);
    CHECK_OK(pb_shutdown());
    return check_result();
}
