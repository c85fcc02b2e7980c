/* BLAS and OpenMP in forked workers, of a program whose own thread pools are up: each task has the threads
 * that it should, nothing freezes, and the program's pools are as they were. */
#include "native_library.h"

typedef struct sight {
    int32_t count, used;
} sight;

static int32_t use_library(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input;
    *(sight *)output = (sight){library.get(), library.used()};
    return 0;
}

enum { ITEMS = 6 };

/* A worker that froze would be killed and named. */
static void check_workers(int32_t inner, int expected) {
    sight seen[ITEMS];
    pb_map_options options = {.struct_size = sizeof options, .timeout = under_valgrind() ? 100 : 20};
    pb_scope scope = 0;
    CHECK_OK(pb_push_backend("multiprocessing", 2, inner, NULL, &scope));
    CHECK_OK(pb_parallel_map(use_library, NULL, ITEMS, NULL, 0, seen, sizeof *seen, &options));
    CHECK_OK(pb_pop_backend(scope));
    for (int i = 0; i < ITEMS; i++) {
        CHECK_INT(count_of(expected), seen[i].count);
        CHECK_INT(count_of(expected), seen[i].used);
    }
}

static void check_here(void) {
    CHECK_INT(count_of(ORIGINAL), library.get());
    CHECK_INT(count_of(ORIGINAL), library.used());
}

/* joblib: test_parallel.py::test_no_blas_crash_or_freeze_with_subprocesses, with forks, where it freezes. */
TEST(workers_keep_to_their_share_whatever_the_program_has_started) {
    for (int round = 0; round < 3; round++) {
        check_here();
        check_workers(0, 1); /* two workers on two CPUs */
    }
    check_here();
}

/* joblib: test_parallel.py::test_threadpool_limitation_in_child_loky */
TEST(workers_may_have_threads_of_their_own) {
    for (int32_t inner = 1; inner <= 3; inner++) {
        check_here();
        check_workers(inner, inner);
    }
    check_here();
}

int main(int argc, char **argv) {
    library_start(argc, argv);
    RUN(workers_keep_to_their_share_whatever_the_program_has_started);
    RUN(workers_may_have_threads_of_their_own);
    CHECK_OK(pb_shutdown());
    return check_result();
}
