/* OpenBLAS inside the tasks of a map: its results are right, also after it was used outside, and in a process
 * that was forked from such a one. */
#include "native_library.h"
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static size_t task_count(void) { return under_valgrind() ? 2 : 6; }

static double *a, *b, *expected;

/* Small whole numbers: every sum is exact, whatever its order. */
static void fill(void) {
    const size_t size = SIDE * SIDE;
    a = malloc(3 * size * sizeof *a);
    REQUIRE(a != NULL);
    b = a + size;
    expected = b + size;
    for (size_t i = 0; i < size; i++) {
        a[i] = (double)(i % 7) - 3;
        b[i] = (double)(i % 11) - 5;
        expected[i] = 0;
    }
    for (size_t i = 0; i < SIDE; i++)
        for (size_t k = 0; k < SIDE; k++)
            for (size_t j = 0; j < SIDE; j++)
                expected[i * SIDE + j] += a[i * SIDE + k] * b[k * SIDE + j];
}

/* 0 if a product is right, bit for bit. */
static int32_t multiply_once(void *ctx, size_t index, const void *input, void *output) {
    double *c = malloc(SIDE * SIDE * sizeof *c);
    (void)ctx, (void)index, (void)input, (void)output;
    REQUIRE(c != NULL);
    multiply(SIDE, a, b, c);
    int32_t differ = memcmp(c, expected, SIDE * SIDE * sizeof *c) != 0;
    free(c);
    return differ;
}

/* Serial OpenBLAS as Debian builds it has no locks: two plain threads that multiply at the same time get
 * wrong products now and then, in some products of a thousand. It is safe on one thread at a time only. */
static int workers(void) { return is_serial() ? 1 : 2; }

static pb_status multiply_in_tasks(int inner_max_num_threads) {
    pb_map_options options = {.struct_size = sizeof options, .batch_size = 1};
    pb_scope scope = 0;
    CHECK_OK(pb_push_backend("threading", workers(), inner_max_num_threads, NULL, &scope));
    pb_status status = pb_parallel_map(multiply_once, NULL, task_count(), NULL, 0, NULL, 0, &options);
    CHECK_OK(pb_pop_backend(scope));
    return status;
}

static int32_t multiply_in_inner_tasks(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    return multiply_in_tasks(0);
}

TEST(products_in_tasks_are_those_of_a_plain_loop) {
    CHECK_OK(multiply_in_tasks(0));
    CHECK_OK(multiply_in_tasks(1));
    CHECK_OK(multiply_in_tasks(2));
    CHECK_OK(multiply_in_tasks(4));
}

TEST(so_are_they_in_tasks_of_tasks) {
    pb_map_options options = {.struct_size = sizeof options, .n_jobs = workers(), .batch_size = 1};
    CHECK_OK(pb_parallel_map(multiply_in_inner_tasks, NULL, 2, NULL, 0, NULL, 0, &options));
    CHECK_INT(count_of(ORIGINAL), library.get());
}

/* joblib: test_parallel.py::test_no_blas_crash_or_freeze_with_subprocesses,
 * test_memmapping.py::test_numpy_dot_parent_and_child_no_freeze. Used outside, in tasks, and outside again.
 */
TEST(outside_and_inside_take_turns) {
    for (int i = 0; i < 3; i++) {
        CHECK_INT(0, multiply_once(NULL, 0, NULL, NULL));
        CHECK_INT(count_of(ORIGINAL), library.used());
        CHECK_OK(multiply_in_tasks(0));
    }
}

/* What `body` returns in a forked child; -1 if it froze or crashed there. A child tells it by a pipe and ends
 * by a signal: at an orderly exit memcheck would take what belonged to the parent's other threads for lost.
 */
static int in_child(int (*body)(void)) {
    int ends[2], result = -1;
    REQUIRE(pipe(ends) == 0);
    fflush(NULL);
    pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        alarm(under_valgrind() ? 200 : 40);
        result = body();
        if (write(ends[1], &result, sizeof result) == sizeof result)
            raise(SIGKILL);
        abort();
    }
    close(ends[1]);
    if (read(ends[0], &result, sizeof result) != sizeof result)
        result = -1;
    close(ends[0]);
    REQUIRE(waitpid(child, NULL, 0) == child);
    return result;
}

static int map_in_child(void) {
    if (multiply_in_tasks(0) != PB_OK)
        return 1;
    if (library.get() != count_of(ORIGINAL))
        return 2;
    /* libgomp cannot open a region in a child of a process that had one: only with the limit of a task is it
     * safe. */
    int is_on_gomp = strcmp(library.layer, "openmp") == 0;
    if (!is_on_gomp && (multiply_in_tasks(2) != PB_OK || library.used() != count_of(ORIGINAL)))
        return 3;
    return pb_shutdown() == PB_OK ? 0 : 4;
}

TEST(a_forked_child_runs_maps_of_products_and_the_parent_goes_on) {
    CHECK_INT(0, multiply_once(NULL, 0, NULL, NULL));
    CHECK_OK(multiply_in_tasks(0));
    CHECK_INT(0, in_child(map_in_child));
    CHECK_INT(0, multiply_once(NULL, 0, NULL, NULL));
    CHECK_OK(multiply_in_tasks(0));
    CHECK_INT(count_of(ORIGINAL), library.used());
}

static pb_scope limit;

static int pop_in_child(void) {
    if (library.get() != 1 || multiply_in_tasks(0) != PB_OK)
        return 1;
    if (pb_pop_thread_limit(limit) != PB_OK || library.get() != count_of(ORIGINAL))
        return 2;
    return multiply_in_tasks(0) == PB_OK ? 0 : 3;
}

/* Parent and child each undo the limit for themselves. */
TEST(a_fork_inside_a_limit) {
    CHECK_OK(pb_push_thread_limit(1, PB_API_ALL, &limit));
    CHECK_INT(0, in_child(pop_in_child));
    CHECK_INT(1, library.get());
    CHECK_OK(pb_pop_thread_limit(limit));
    CHECK_INT(count_of(ORIGINAL), library.used());
}

int main(int argc, char **argv) {
    library_start(argc, argv);
    fill();
    RUN(products_in_tasks_are_those_of_a_plain_loop);
    RUN(so_are_they_in_tasks_of_tasks);
    RUN(outside_and_inside_take_turns);
    RUN(a_forked_child_runs_maps_of_products_and_the_parent_goes_on);
    RUN(a_fork_inside_a_limit);
    free(a);
    CHECK_OK(pb_shutdown());
    return check_result();
}
