/* Tasks that end their worker, or go on too long: on backend loky only the item that did it is lost. */
#include "sync.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* What a map and its tasks both see: it lies in a block of pb_alloc_shared. */
typedef struct board {
    int32_t deed;    /* what the item `index` does */
    uint32_t starts; /* how often it was started */
    size_t index;
    int32_t pids[64];
} board;

enum deed {
    NOTHING,
    SEGFAULT,
    ABORT,
    EXIT,
    EXIT_AT_ONCE,
    KILL,
    STOP,
    LOOP,
    CLOSE_ALL,
    FORK,
    CHDIR,
    THREADS,
    EAT
};

static board *new_board(enum deed deed, size_t index) {
    void *block = NULL;
    CHECK_OK(pb_alloc_shared(sizeof(board), &block));
    board *b = block;
    b->deed = deed;
    b->index = index;
    return b;
}

static void *nothing(void *arg) { return arg; }

static void close_all(void) {
    for (int fd = 3; fd < 256; ++fd)
        close(fd);
}

static void run_threads(void) {
    pthread_t threads[4];
    for (int i = 0; i < 4; ++i)
        CHECK(pthread_create(&threads[i], NULL, nothing, NULL) == 0);
    for (int i = 0; i < 4; ++i)
        CHECK(pthread_join(threads[i], NULL) == 0);
}

/* As a process that the system kills when it has no memory left: it gets none, and gives up. */
static void eat_memory(void) {
    const struct rlimit limit = {64 << 20, 64 << 20};
    setrlimit(RLIMIT_AS, &limit);
    for (;;)
        if (malloc(1 << 20) == NULL)
            abort();
}

static void commit(enum deed deed) {
    switch (deed) {
    case NOTHING:
        return;
    case SEGFAULT:
        raise(SIGSEGV);
        return;
    case ABORT:
        abort();
    case EXIT:
        exit(3);
    case EXIT_AT_ONCE:
        _exit(42);
    case KILL:
        raise(SIGKILL);
        return;
    case STOP:
        raise(SIGSTOP);
        return;
    case LOOP:
        for (volatile int on = 1; on;) {
        }
        return;
    case CLOSE_ALL:
        close_all();
        return;
    case FORK:
        if (fork() == 0)
            _exit(0);
        wait(NULL);
        return;
    case CHDIR:
        CHECK(chdir("/") == 0);
        return;
    case THREADS:
        run_threads();
        return;
    case EAT:
        eat_memory();
        return;
    }
}

static int32_t square(void *ctx, size_t index, const void *input, void *output) {
    board *b = ctx;
    (void)input;
    if (index == b->index) {
        __atomic_add_fetch(&b->starts, 1, __ATOMIC_RELAXED);
        commit((enum deed)b->deed);
    }
    *(int64_t *)output = (int64_t)(index * index);
    return 0;
}

enum { N = 40, BAD = 17 };

static pb_map_options with_board(uint32_t flags, int32_t *statuses) {
    pb_map_options options = {.struct_size = sizeof options};
    options.ctx_size = sizeof(board);
    options.flags = flags;
    options.statuses = statuses;
    return options;
}

static void check_good_map(void) {
    board *b = new_board(NOTHING, N);
    int64_t outputs[N] = {0};
    const pb_map_options options = with_board(0, NULL);
    CHECK_OK(pb_parallel_map(square, b, N, NULL, 0, outputs, sizeof *outputs, &options));
    for (int64_t i = 0; i < N; ++i)
        CHECK_INT(i * i, outputs[i]);
    pb_free_shared(b);
}

static void check_all_but(size_t bad, const int32_t *statuses, const int64_t *outputs) {
    for (size_t i = 0; i < N; ++i) {
        CHECK_INT(i == bad ? PB_ERR_WORKER_LOST : 0, statuses[i]);
        if (i != bad)
            CHECK_INT(i * i, outputs[i]);
    }
}

/* joblib: loky tests/_test_process_executor.py::test_killed_child, ::test_exited_child and test_crashes */
TEST(the_item_that_ended_its_worker_is_named_and_the_others_have_their_results) {
    static const struct {
        enum deed deed;
        int32_t signal, exit_code;
        const char *text;
    } table[] = {
        {SEGFAULT, SIGSEGV, -1, "SIGSEGV"}, {ABORT, SIGABRT, -1, "SIGABRT"},
        {KILL, SIGKILL, -1, "SIGKILL"},     {EXIT, 0, 3, "code 3"},
        {EXIT_AT_ONCE, 0, 42, "code 42"},   {EAT, SIGABRT, -1, "SIGABRT"},
    };
    for (size_t row = 0; row < sizeof table / sizeof *table; ++row) {
        board *b = new_board(table[row].deed, BAD);
        int32_t statuses[N];
        int64_t outputs[N] = {0};
        pb_map_options options = with_board(PB_COLLECT_ERRORS, statuses);
        CHECK_STATUS(pb_parallel_map(square, b, N, NULL, 0, outputs, sizeof *outputs, &options),
                     PB_ERR_TASK_FAILED);
        CHECK_TEXT("item 17");
        CHECK_TEXT(table[row].text);
        check_all_but(BAD, statuses, outputs);
        options = with_board(0, NULL);
        CHECK_STATUS(pb_parallel_map(square, b, N, NULL, 0, outputs, sizeof *outputs, &options),
                     PB_ERR_WORKER_LOST);
        CHECK_INT(BAD, last_info().task_index);
        CHECK_INT(table[row].signal, last_info().signal);
        CHECK_INT(table[row].exit_code, last_info().exit_code);
        CHECK_INT(1, last_info().attempts);
        CHECK_INT(2, b->starts);
        pb_free_shared(b);
        check_good_map();
    }
}

TEST(a_lost_item_is_started_again_as_often_as_the_caller_allows) {
    board *b = new_board(KILL, BAD);
    int64_t outputs[N];
    pb_map_options options = with_board(0, NULL);
    options.retries = 2;
    CHECK_STATUS(pb_parallel_map(square, b, N, NULL, 0, outputs, sizeof *outputs, &options),
                 PB_ERR_WORKER_LOST);
    CHECK_INT(3, b->starts);
    CHECK_INT(3, last_info().attempts);
    options.flags = PB_NON_IDEMPOTENT;
    b->starts = 0;
    CHECK_STATUS(pb_parallel_map(square, b, N, NULL, 0, outputs, sizeof *outputs, &options),
                 PB_ERR_WORKER_LOST);
    CHECK_INT(1, b->starts);
    pb_free_shared(b);
}

static int32_t die_once(void *ctx, size_t index, const void *input, void *output) {
    board *b = ctx;
    if (index == b->index && __atomic_add_fetch(&b->starts, 1, __ATOMIC_RELAXED) == 1)
        raise(SIGKILL);
    b->index += index == b->index ? N : 0;
    return square(ctx, index, input, output);
}

TEST(one_that_succeeds_then_is_no_error) {
    board *b = new_board(NOTHING, BAD);
    int64_t outputs[N] = {0};
    pb_map_options options = with_board(0, NULL);
    options.retries = 1;
    CHECK_OK(pb_parallel_map(die_once, b, N, NULL, 0, outputs, sizeof *outputs, &options));
    for (int64_t i = 0; i < N; ++i)
        CHECK_INT(i * i, outputs[i]);
    CHECK_INT(2, b->starts);
    pb_free_shared(b);
}

TEST(a_task_that_goes_on_for_ever_is_killed_and_the_others_keep_their_results) {
    static const enum deed deeds[] = {LOOP, STOP};
    for (size_t d = 0; d < 2; ++d) {
        board *b = new_board(deeds[d], BAD);
        int32_t statuses[N];
        int64_t outputs[N] = {0};
        pb_map_options options = with_board(PB_COLLECT_ERRORS, statuses);
        options.timeout = 0.3;
        CHECK_STATUS(pb_parallel_map(square, b, N, NULL, 0, outputs, sizeof *outputs, &options),
                     PB_ERR_TASK_FAILED);
        for (size_t i = 0; i < N; ++i)
            CHECK_INT(i == BAD ? PB_ERR_TIMEOUT : 0, statuses[i]);
        options = with_board(0, NULL);
        options.timeout = 0.3;
        CHECK_STATUS(pb_parallel_map(square, b, N, NULL, 0, outputs, sizeof *outputs, &options),
                     PB_ERR_TIMEOUT);
        CHECK_INT(BAD, last_info().task_index);
        pb_free_shared(b);
        check_good_map();
    }
}

static int32_t loop_or_count(void *ctx, size_t index, const void *input, void *output) {
    board *b = ctx;
    (void)input, (void)output;
    if (index == b->index)
        commit(LOOP);
    __atomic_add_fetch(&b->starts, 1, __ATOMIC_RELAXED);
    return 0;
}

/* Replies that come all the time are no reason not to look after a worker that sends none. */
TEST(it_is_killed_though_others_end_all_the_time) {
    enum { MANY = 20000000 }; /* many times more than run until that one is killed */
    board *b = new_board(LOOP, BAD);
    pb_map_options options = with_board(0, NULL);
    options.timeout = 0.3;
    options.batch_size = 1;
    CHECK_STATUS(pb_parallel_map(loop_or_count, b, MANY, NULL, 0, NULL, 0, &options), PB_ERR_TIMEOUT);
    CHECK_INT(BAD, last_info().task_index);
    CHECK(b->starts < MANY / 4);
    pb_free_shared(b);
}

TEST(a_cancelled_map_does_not_wait_for_tasks_that_do_not_listen) {
    board *b = new_board(LOOP, 0);
    int64_t outputs[N];
    const pb_map_options options = with_board(0, NULL);
    pb_job *job = NULL;
    CHECK_OK(pb_submit_map(square, b, N, NULL, 0, outputs, sizeof *outputs, &options, &job));
    while (__atomic_load_n(&b->starts, __ATOMIC_RELAXED) == 0)
        sched_yield();
    CHECK_OK(pb_job_cancel(job));
    CHECK_STATUS(pb_job_wait(job, PATIENCE), PB_ERR_CANCELLED);
    pb_job_free(job);
    pb_free_shared(b);
    check_good_map();
}

TEST(tasks_may_fork_change_directory_and_start_threads) {
    static const enum deed deeds[] = {FORK, CHDIR, THREADS};
    for (size_t d = 0; d < 3; ++d) {
        board *b = new_board(deeds[d], BAD);
        int64_t outputs[N] = {0};
        const pb_map_options options = with_board(0, NULL);
        CHECK_OK(pb_parallel_map(square, b, N, NULL, 0, outputs, sizeof *outputs, &options));
        for (int64_t i = 0; i < N; ++i)
            CHECK_INT(i * i, outputs[i]);
        pb_free_shared(b);
        check_good_map();
    }
}

/* Its results may count, or be lost with the worker; either way the map ends, and the next one works. */
TEST(a_task_that_closes_all_descriptors_harms_nobody_else) {
    board *b = new_board(CLOSE_ALL, BAD);
    int32_t statuses[N];
    int64_t outputs[N] = {0};
    const pb_map_options options = with_board(PB_COLLECT_ERRORS, statuses);
    const pb_status status = pb_parallel_map(square, b, N, NULL, 0, outputs, sizeof *outputs, &options);
    CHECK(status == PB_OK || status == PB_ERR_TASK_FAILED);
    for (size_t i = 0; i < N; ++i)
        CHECK(statuses[i] == 0 ? outputs[i] == (int64_t)(i * i) : statuses[i] == PB_ERR_WORKER_LOST);
    pb_free_shared(b);
    check_good_map();
}

/* ---- workers that are killed from outside ---- */

static int32_t kill_another(void *ctx, size_t index, const void *input, void *output) {
    board *b = ctx;
    (void)input, (void)output;
    __atomic_store_n(&b->pids[index], (int32_t)getpid(), __ATOMIC_SEQ_CST);
    for (size_t i = 0; i < 13; ++i) {
        const int32_t other = __atomic_load_n(&b->pids[i], __ATOMIC_SEQ_CST);
        if (i != index && other > 0)
            kill(other, SIGKILL);
    }
    return 0;
}

/* joblib: loky tests/test_reusable_executor.py::test_crash_races */
TEST(workers_that_kill_each_other_never_hang_the_map) {
    static const int32_t crowds[] = {1, 2, 5, 13};
    for (size_t c = 0; c < 4; ++c) {
        pb_scope scope = use_backend("loky", crowds[c]);
        board *b = new_board(NOTHING, 0);
        int32_t statuses[64];
        pb_map_options options = with_board(PB_COLLECT_ERRORS, statuses);
        options.batch_size = 1;
        const pb_status status = pb_parallel_map(kill_another, b, 13, NULL, 0, NULL, 0, &options);
        if (status != PB_OK && status != PB_ERR_TASK_FAILED)
            CHECK_STATUS(status, PB_ERR_WORKER_LOST);
        CHECK_OK(pb_pop_backend(scope));
        pb_free_shared(b);
        check_good_map();
    }
}

static int32_t tell_pid(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input;
    *(int32_t *)output = (int32_t)getpid();
    return 0;
}

/* Before, while and after they run something, and while they reply. */
TEST(workers_killed_at_any_moment_are_replaced) {
    board *b = new_board(NOTHING, N);
    int64_t outputs[N];
    pb_map_options options = with_board(0, NULL);
    options.retries = 20;
    for (size_t round = 0; round < rounds(60); ++round) {
        int32_t pid = 0;
        CHECK_OK(pb_parallel_map(tell_pid, NULL, 1, NULL, 0, &pid, sizeof pid, NULL));
        pb_job *job = NULL;
        CHECK_OK(pb_submit_map(square, b, N, NULL, 0, outputs, sizeof *outputs, &options, &job));
        work_for(1e-6 * (double)(round * 5));
        kill(pid, SIGKILL);
        CHECK_OK(pb_job_wait(job, PATIENCE));
        pb_job_free(job);
        for (int64_t i = 0; i < N; ++i)
            CHECK_INT(i * i, outputs[i]);
    }
    pb_free_shared(b);
}

int main(int argc, char **argv) {
    pb_worker_main(argc, argv);
    const pb_scope scope = use_backend("loky", 3);
    RUN(the_item_that_ended_its_worker_is_named_and_the_others_have_their_results);
    RUN(a_lost_item_is_started_again_as_often_as_the_caller_allows);
    RUN(one_that_succeeds_then_is_no_error);
    RUN(a_task_that_goes_on_for_ever_is_killed_and_the_others_keep_their_results);
    RUN(it_is_killed_though_others_end_all_the_time);
    RUN(a_cancelled_map_does_not_wait_for_tasks_that_do_not_listen);
    RUN(tasks_may_fork_change_directory_and_start_threads);
    RUN(a_task_that_closes_all_descriptors_harms_nobody_else);
    RUN(workers_that_kill_each_other_never_hang_the_map);
    RUN(workers_killed_at_any_moment_are_replaced);
    CHECK_OK(pb_pop_backend(scope));
    CHECK_OK(pb_shutdown());
    return check_result();
}
