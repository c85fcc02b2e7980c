/* Workers of backend loky between calls: which are kept, which leave, and what they find around them. */
#include "sync.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

static int32_t tell_pid(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input;
    *(int32_t *)output = (int32_t)getpid();
    return 0;
}

/* Two items that run at the same time, so on two workers. */
static int32_t meet(void *ctx, size_t index, const void *input, void *output) {
    int32_t *arrived = ctx;
    __atomic_add_fetch(arrived, 1, __ATOMIC_SEQ_CST);
    const double end = seconds() + PATIENCE;
    while (__atomic_load_n(arrived, __ATOMIC_SEQ_CST) < 2)
        if (seconds() > end)
            return 1;
        else
            sched_yield();
    return tell_pid(NULL, index, input, output);
}

/* The pids of two workers, the smaller one first. */
static void two_pids(int32_t pids[2]) {
    void *arrived = NULL;
    CHECK_OK(pb_alloc_shared(sizeof(int32_t), &arrived));
    pb_map_options options = {.struct_size = sizeof options, .batch_size = 1, .ctx_size = sizeof(int32_t)};
    CHECK_OK(pb_parallel_map(meet, arrived, 2, NULL, 0, pids, sizeof *pids, &options));
    pb_free_shared(arrived);
    if (pids[0] > pids[1]) {
        const int32_t larger = pids[0];
        pids[0] = pids[1], pids[1] = larger;
    }
}

static int is_alive(int32_t pid) {
    /* One that has ended and was not reaped is a process still, but nothing runs there. */
    char path[64], state = 'Z';
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return 0;
    if (fscanf(file, "%*d (%*[^)]) %c", &state) != 1)
        state = 'Z';
    fclose(file);
    return state != 'Z';
}

static int has_gone(int32_t pid) {
    const double end = seconds() + PATIENCE;
    while (is_alive(pid)) {
        if (seconds() > end)
            return 0;
        usleep(1000);
    }
    return 1;
}

/* joblib: test_parallel.py::test_loky_reuse_workers */
TEST(ten_calls_use_the_same_workers) {
    const pb_scope scope = use_backend("loky", 2);
    int32_t first[2], pids[2];
    two_pids(first);
    CHECK(first[0] != first[1] && first[0] != getpid() && first[1] != getpid());
    for (int i = 0; i < 10; ++i) {
        two_pids(pids);
        CHECK_INT(first[0], pids[0]);
        CHECK_INT(first[1], pids[1]);
    }
    CHECK_OK(pb_pop_backend(scope));
}

/* loky: test_reusable_executor.py::test_reusable_executor_resize */
TEST(another_number_of_workers_keeps_those_that_are_there) {
    int32_t two[2], again[2], one = 0;
    pb_scope scope = use_backend("loky", 2);
    two_pids(two);
    CHECK_OK(pb_pop_backend(scope));
    scope = use_backend("loky", 1);
    CHECK_OK(pb_parallel_map(tell_pid, NULL, 1, NULL, 0, &one, sizeof one, NULL));
    CHECK(one == two[0] || one == two[1]);
    CHECK_OK(pb_pop_backend(scope));
    scope = use_backend("loky", 5);
    two_pids(again);
    CHECK(again[0] == two[0] || again[1] == two[1]);
    CHECK_OK(pb_pop_backend(scope));
}

TEST(a_shutdown_ends_them_and_the_next_call_starts_others) {
    const pb_scope scope = use_backend("loky", 2);
    int32_t before[2], after[2];
    two_pids(before);
    CHECK_OK(pb_shutdown());
    CHECK(has_gone(before[0]) && has_gone(before[1]));
    two_pids(after);
    CHECK(after[0] != before[0] && after[1] != before[1]);
    CHECK_OK(pb_pop_backend(scope));
}

/* loky: test_process_executor.py::test_worker_timeout */
TEST(a_worker_without_work_leaves_and_is_not_missed) {
    pb_scope scope = 0;
    CHECK_OK(pb_push_backend("loky", 2, 0, "idle_worker_timeout=0.05", &scope));
    int32_t pids[2];
    for (int i = 0; i < 3; ++i) {
        two_pids(pids);
        CHECK(has_gone(pids[0]) && has_gone(pids[1]));
    }
    /* About the time that one leaves: whether it has or not, the call succeeds. */
    for (size_t i = 0; i < rounds(60); ++i) {
        CHECK_OK(pb_parallel_map(tell_pid, NULL, 1, NULL, 0, pids, sizeof *pids, NULL));
        usleep(49000 + 40 * (unsigned)i);
    }
    CHECK_OK(pb_pop_backend(scope));
}

TEST(a_worker_that_has_run_enough_is_replaced) {
    pb_scope scope = 0;
    CHECK_OK(pb_push_backend("loky", 1, 0, "max_tasks_per_worker=3", &scope));
    int32_t pids[7];
    const pb_map_options options = {.struct_size = sizeof options, .batch_size = 1};
    CHECK_OK(pb_parallel_map(tell_pid, NULL, 7, NULL, 0, pids, sizeof *pids, &options));
    CHECK(pids[0] == pids[2] && pids[0] != pids[6]);
    CHECK(has_gone(pids[0]));
    CHECK_OK(pb_pop_backend(scope));
}

static int32_t leak(void *ctx, size_t index, const void *input, void *output) {
    memset(malloc(8 << 20), 1, 8 << 20);
    work_for(0.03);
    return tell_pid(ctx, index, input, output);
}

TEST(so_is_one_that_has_grown_too_large) {
    pb_scope scope = 0;
    CHECK_OK(pb_push_backend("loky", 1, 0, "max_worker_memory=40M", &scope));
    int32_t pids[24];
    const pb_map_options options = {.struct_size = sizeof options, .batch_size = 1};
    CHECK_OK(pb_parallel_map(leak, NULL, 24, NULL, 0, pids, sizeof *pids, &options));
    CHECK(pids[0] == pids[1] && pids[0] != pids[23]);
    CHECK_OK(pb_pop_backend(scope));
}

/* ---- the initializer ---- */

static int32_t initialised = 0;

static int32_t warm_up(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    ++initialised;
    return 0;
}

static int32_t fail_to_start(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    pb_task_fail("no licence");
    return 9;
}

static int32_t count_initialised(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input;
    *(int32_t *)output = initialised;
    return 0;
}

/* joblib: test_parallel.py::test_initializer_reused, ::test_initializer_not_reused */
TEST(the_initializer_runs_once_in_each_worker) {
    pb_scope scope = 0;
    CHECK_OK(pb_push_backend("loky", 2, 0, "initializer=warm_up", &scope));
    for (int round = 0; round < 3; ++round) {
        int32_t counts[40] = {0};
        CHECK_OK(pb_parallel_map(count_initialised, NULL, 40, NULL, 0, counts, sizeof *counts, NULL));
        for (int i = 0; i < 40; ++i)
            CHECK_INT(1, counts[i]);
    }
    CHECK_INT(0, initialised);
    CHECK_OK(pb_pop_backend(scope));
}

TEST(one_that_fails_ends_the_map_with_its_text) {
    pb_scope scope = 0;
    int32_t counts[4];
    CHECK_OK(pb_push_backend("loky", 2, 0, "initializer=fail_to_start", &scope));
    CHECK_STATUS(pb_parallel_map(count_initialised, NULL, 4, NULL, 0, counts, sizeof *counts, NULL),
                 PB_ERR_TASK_FAILED);
    CHECK_TEXT("initializer");
    CHECK_TEXT("no licence");
    CHECK_OK(pb_pop_backend(scope));
    CHECK_OK(pb_push_backend("loky", 2, 0, "initializer=nobody", &scope));
    CHECK_STATUS(pb_parallel_map(count_initialised, NULL, 4, NULL, 0, counts, sizeof *counts, NULL),
                 PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("'nobody' is no registered task");
    CHECK_OK(pb_pop_backend(scope));
}

/* Fails, and leaves a process that has the FIFO open. */
static int32_t leave_one_behind(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    const int fifo = open(getenv("PB_TEST_FIFO"), O_WRONLY);
    if (fork() == 0) {
        alarm(60);
        while (getpid() > 0)
            pause();
    }
    close(fifo);
    return 9;
}

TEST(what_it_has_started_ends_with_its_worker) {
    char folder[] = "/tmp/pb-life-XXXXXX", path[64];
    CHECK(mkdtemp(folder) != NULL);
    snprintf(path, sizeof path, "%s/fifo", folder);
    CHECK_INT(0, mkfifo(path, 0600));
    CHECK_INT(0, setenv("PB_TEST_FIFO", path, 1));
    struct pollfd fifo = {.fd = open(path, O_RDONLY | O_NONBLOCK), .events = POLLIN};
    CHECK(fifo.fd >= 0);
    pb_scope scope = 0;
    CHECK_OK(pb_push_backend("loky", 1, 0, "initializer=leave_one_behind", &scope));
    CHECK_STATUS(pb_parallel_map(tell_pid, NULL, 1, NULL, 0, NULL, 0, NULL), PB_ERR_TASK_FAILED);
    CHECK_INT(1, poll(&fifo, 1, (int)(PATIENCE * 1000)));
    CHECK(fifo.revents & POLLHUP); /* nobody has it open any more */
    CHECK_OK(pb_pop_backend(scope));
    CHECK_INT(0, unsetenv("PB_TEST_FIFO"));
    close(fifo.fd);
    unlink(path);
    rmdir(folder);
}

/* ---- what a worker finds ---- */

static int32_t tell_variables(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input;
    const char *omp = getenv("OMP_NUM_THREADS"), *blas = getenv("OPENBLAS_NUM_THREADS");
    snprintf(output, 64, "%s %s", omp != NULL ? omp : "-", blas != NULL ? blas : "-");
    return 0;
}

static void check_variables(int32_t inner, const char *expected) {
    pb_scope scope = 0;
    char text[64];
    CHECK_OK(pb_shutdown());
    CHECK_OK(pb_push_backend("loky", 2, inner, NULL, &scope));
    CHECK_OK(pb_parallel_map(tell_variables, NULL, 1, NULL, 0, text, sizeof text, NULL));
    CHECK_STR(expected, text);
    CHECK_OK(pb_pop_backend(scope));
}

/* joblib: test_parallel.py::test_threadpool_limitation_in_child_override: the parent's variable beats the
 * default, an explicit number beats the variable. One item has one worker, which owns all CPUs. */
TEST(variables_of_native_libraries_say_the_share_unless_the_user_does) {
    char share[64];
    snprintf(share, sizeof share, "7 %d", pb_cpu_count(0));
    CHECK_INT(0, setenv("OMP_NUM_THREADS", "7", 1));
    CHECK_INT(0, unsetenv("OPENBLAS_NUM_THREADS"));
    check_variables(0, share);
    check_variables(3, "3 3");
    CHECK_INT(0, unsetenv("OMP_NUM_THREADS"));
    check_variables(2, "2 2");
    CHECK_STR("-", getenv("OMP_NUM_THREADS") != NULL ? "set" : "-");
}

/* ---- ctx ---- */

enum { LARGE = 1 << 20 };

static int32_t sum_and_scribble(void *ctx, size_t index, const void *input, void *output) {
    unsigned char *bytes = ctx;
    int64_t sum = 0;
    (void)index, (void)input;
    for (size_t i = 0; i < LARGE; ++i)
        sum += bytes[i];
    bytes[1] = 77; /* seen by nobody in the next call */
    *(int64_t *)output = sum - (bytes[0] == 5 ? 0 : 1);
    return 0;
}

TEST(a_large_ctx_is_the_same_in_every_call_and_changes_with_the_callers) {
    static unsigned char ctx[LARGE];
    const pb_scope scope = use_backend("loky", 1);
    pb_map_options options = {.struct_size = sizeof options, .ctx_size = sizeof ctx};
    ctx[0] = 5;
    for (int round = 0; round < 5; ++round) {
        int64_t sum = 0;
        ctx[LARGE - 1] = (unsigned char)(round / 2);
        CHECK_OK(pb_parallel_map(sum_and_scribble, ctx, 1, NULL, 0, &sum, sizeof sum, &options));
        CHECK_INT(5 + round / 2, sum);
        CHECK_INT(0, ctx[1]);
    }
    CHECK_OK(pb_pop_backend(scope));
}

static int32_t copy_large(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index;
    memcpy(output, input, LARGE);
    return 0;
}

TEST(items_may_grow_from_call_to_call_and_lie_in_shared_blocks) {
    const pb_scope scope = use_backend("loky", 2);
    enum { ITEMS = 5 };
    void *shared = NULL;
    CHECK_OK(pb_alloc_shared((size_t)2 * ITEMS * LARGE, &shared));
    unsigned char *own = malloc((size_t)2 * ITEMS * LARGE);
    unsigned char *both[] = {own, shared};
    for (int round = 0; round < 4; ++round) {
        unsigned char *in = both[round % 2], *out = both[round / 2] + (size_t)ITEMS * LARGE;
        for (size_t i = 0; i < (size_t)ITEMS * LARGE; ++i)
            in[i] = (unsigned char)(i % 251 + (size_t)round);
        CHECK_OK(pb_parallel_map(copy_large, NULL, ITEMS, in, LARGE, out, LARGE, NULL));
        CHECK_INT(0, memcmp(in, out, (size_t)ITEMS * LARGE));
    }
    free(own);
    pb_free_shared(shared);
    CHECK_OK(pb_pop_backend(scope));
}

static int32_t write_pid(void *ctx, size_t index, const void *input, size_t size, pb_output *output) {
    const int32_t pid = (int32_t)getpid();
    (void)ctx, (void)index;
    CHECK_INT(0, ((const char *)input)[size - 1]);
    return pb_output_write(output, &pid, sizeof pid) == PB_OK ? 0 : 1;
}

/* Three strings of 24 MiB are more than one message takes, so the chunk that has them all is sent in two. */
TEST(long_strings_are_sent_in_parts) {
    enum { SIZE = 24 << 20 };
    char *string = calloc(SIZE, 1);
    const pb_bytes inputs[] = {{string, SIZE}, {string, SIZE}, {string, SIZE}};
    const pb_map_options options = {.struct_size = sizeof options, .batch_size = 3};
    pb_scope scope = use_backend("loky", 2);
    pb_results *results = NULL;
    CHECK_OK(pb_map_bytes(write_pid, NULL, 3, inputs, &options, &results));
    CHECK_OK(pb_pop_backend(scope));
    int32_t pids[3] = {0};
    for (size_t i = 0; i < 3; ++i) {
        pb_bytes result;
        CHECK_OK(pb_results_get(results, i, &result));
        memcpy(&pids[i], result.data, sizeof pids[i]);
    }
    CHECK(pids[0] != pids[1] && pids[1] == pids[2]);
    pb_results_free(results);
    free(string);
}

int main(int argc, char **argv) {
    CHECK_OK(pb_register_task("warm_up", warm_up));
    CHECK_OK(pb_register_task("fail_to_start", fail_to_start));
    CHECK_OK(pb_register_task("leave_one_behind", leave_one_behind));
    pb_worker_main(argc, argv);
    RUN(ten_calls_use_the_same_workers);
    RUN(another_number_of_workers_keeps_those_that_are_there);
    RUN(a_shutdown_ends_them_and_the_next_call_starts_others);
    RUN(a_worker_without_work_leaves_and_is_not_missed);
    RUN(a_worker_that_has_run_enough_is_replaced);
    RUN(so_is_one_that_has_grown_too_large);
    RUN(the_initializer_runs_once_in_each_worker);
    RUN(one_that_fails_ends_the_map_with_its_text);
    RUN(what_it_has_started_ends_with_its_worker);
    RUN(variables_of_native_libraries_say_the_share_unless_the_user_does);
    RUN(a_large_ctx_is_the_same_in_every_call_and_changes_with_the_callers);
    RUN(items_may_grow_from_call_to_call_and_lie_in_shared_blocks);
    RUN(long_strings_are_sent_in_parts);
    CHECK_OK(pb_shutdown());
    return check_result();
}
