/* The program around maps on "multiprocessing": its signals, its limits, its threads, its own children, its
 * death. */
#include "forked.h"

#include <sys/prctl.h>
#include <sys/syscall.h>

enum { N = 30 };

/* Runs `work` in a child of the test, which it may spoil; the child fails by check.h, or by its alarm. It
 * ends by a signal: at an orderly exit memcheck would take what belonged to the parent's other threads for
 * lost. */
static void in_child(void (*work)(void)) {
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        alarm(60);
        work();
        raise(SIGKILL);
    }
    int status = -1;
    CHECK_INT(child, waitpid(child, &status, 0));
    CHECK(WIFSIGNALED(status));
    CHECK_INT(SIGKILL, WTERMSIG(status));
}

/* ---- its death ---- */

typedef struct crew {
    int count;
    int pids[8];
} crew;

static int32_t sign_in_and_stay(void *ctx, size_t index, const void *input, void *output) {
    crew *c = ctx;
    (void)index, (void)input, (void)output;
    /* On the list first, then counted. */
    store(&c->pids[index], (int)getpid());
    raise_by_1(&c->count);
    for (;;)
        pause();
    return 0;
}

static int is_gone(int pid) {
    /* A zombie is gone too: whoever adopted it has not looked yet. */
    char path[64], line[512] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *stat = fopen(path, "r");
    if (stat == NULL)
        return 1;
    const char *end = fgets(line, sizeof line, stat) != NULL ? strrchr(line, ')') : NULL;
    fclose(stat);
    return end == NULL || end[2] == 'Z' || end[2] == 'X';
}

static void check_workers_die_with(int signal_of_parent) {
    crew *c = shared(sizeof *c);
    const pid_t host = fork();
    CHECK(host >= 0);
    if (host == 0) {
        map_forked(4, sign_in_and_stay, c, 4, NULL, NULL);
        _exit(1);
    }
    CHECK(wait_for(&c->count, 4));
    CHECK_INT(0, kill(host, signal_of_parent));
    int status = -1;
    CHECK_INT(host, waitpid(host, &status, 0));
    CHECK(WIFSIGNALED(status));
    CHECK_INT(signal_of_parent, WTERMSIG(status));
    const double end = seconds() + PATIENCE;
    for (int i = 0; i < 4; i++)
        while (!is_gone(c->pids[i])) {
            CHECK(seconds() < end);
            sched_yield();
        }
    pb_free_shared(c);
}

/* joblib: loky test_sigkill_shutdown_leaks_workers. There are no files and no names to be left. */
TEST(no_worker_outlives_a_program_that_is_killed) {
    check_workers_die_with(SIGKILL);
    check_workers_die_with(SIGTERM);
    check_workers_die_with(SIGINT);
}

/* ---- its signals ---- */

static volatile sig_atomic_t interrupts, deaths;

static void note_interrupt(int number) {
    (void)number;
    interrupts = interrupts + 1;
}

static int32_t interrupt_all(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx;
    /* A worker that is forked after the program was interrupted begins with its count. */
    static pid_t self;
    static int at_begin;
    if (self != getpid()) {
        self = getpid();
        at_begin = interrupts;
    }
    if (index == 3)
        kill(0, SIGINT); /* as the terminal does: the whole group, this process first */
    return interrupts == at_begin ? square(NULL, index, input, output) : 1;
}

static void map_interrupted(void) {
    CHECK_INT(0, setpgid(0, 0));                           /* not the test's own group */
    struct sigaction act = {.sa_handler = note_interrupt}; /* without SA_RESTART */
    CHECK_INT(0, sigaction(SIGINT, &act, NULL));
    int32_t outputs[N];
    CHECK_OK(map_forked(2, interrupt_all, NULL, N, outputs, NULL));
    for (int i = 0; i < N; i++)
        CHECK_INT(i * i, outputs[i]);
    CHECK_INT(1, interrupts);
    check_it_works();
}

/* joblib#181, loky#477: there workers are interrupted too, and go on with the next task. */
TEST(an_interrupt_is_the_programs_and_leaves_workers_alone) { in_child(map_interrupted); }

static void reap_all(int number) {
    (void)number;
    const int before = errno;
    while (waitpid(-1, NULL, WNOHANG) > 0)
        deaths = deaths + 1;
    errno = before;
}

static int32_t die_at_9(void *ctx, size_t index, const void *input, void *output) {
    if (index == 9)
        _exit(5);
    return square(ctx, index, input, output);
}

static void map_while_others_reap(void) {
    int32_t outputs[N], statuses[N];
    pb_map_options options = {
        .struct_size = sizeof options, .statuses = statuses, .flags = PB_COLLECT_ERRORS};
    for (int round = 0; round < 20; round++) {
        CHECK_OK(map_forked(2, square, NULL, N, outputs, NULL));
        /* Whether we or they come first, the death is seen; how it came only if we do. */
        CHECK_STATUS(map_forked(2, die_at_9, NULL, N, outputs, &options), PB_ERR_TASK_FAILED);
        for (int i = 0; i < N; i++)
            CHECK_INT(i == 9 ? PB_ERR_WORKER_LOST : 0, statuses[i]);
    }
}

static void map_beside_a_handler_that_reaps_all(void) {
    signal(SIGCHLD, reap_all);
    map_while_others_reap();
}

static void map_where_children_are_ignored(void) {
    signal(SIGCHLD, SIG_IGN);
    map_while_others_reap();
}

TEST(a_program_that_reaps_every_child_disturbs_nothing) {
    in_child(map_beside_a_handler_that_reaps_all);
    in_child(map_where_children_are_ignored);
}

TEST(a_map_reaps_no_child_of_the_program) {
    const pid_t child = fork();
    if (child == 0)
        _exit(6);
    siginfo_t info;
    CHECK_INT(0, waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT));
    int32_t outputs[N];
    CHECK_OK(map_forked(2, square, NULL, N, outputs, NULL));
    CHECK_STATUS(map_forked(2, die_at_9, NULL, N, outputs, NULL), PB_ERR_WORKER_LOST);
    int status = -1;
    CHECK_INT(child, waitpid(child, &status, 0));
    CHECK_INT(6, WEXITSTATUS(status));
}

/* ---- its limits ---- */

static void limit_processes(rlim_t most) {
    const struct rlimit limit = {most, most};
    CHECK_INT(0, setrlimit(RLIMIT_NPROC, &limit));
    /* The limit does not bind the superuser; nobody else has this number, nor another run of this test. */
    const uid_t nobody = 1000000 + (uid_t)getpid();
    if (getuid() == 0)
        CHECK_INT(0, setresuid(nobody, nobody, nobody));
}

static void map_without_processes(void) {
    limit_processes(0);
    int32_t outputs[N];
    CHECK_STATUS(map_forked(2, square, NULL, N, outputs, NULL), PB_ERR_BACKEND_UNAVAILABLE);
    CHECK_TEXT("ulimit -u");
    CHECK_TEXT("threading");
}

TEST(where_no_process_can_be_started_the_text_says_what_to_do) { in_child(map_without_processes); }

static int32_t own_pid(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input;
    *(int32_t *)output = (int32_t)getpid();
    work_for(0.001);
    return 0;
}

static void map_with_one_process(void) {
    if (getuid() != 0)
        return; /* what else the user runs is not known */
    limit_processes(2);
    int32_t outputs[N];
    CHECK_OK(map_forked(4, own_pid, NULL, N, outputs, NULL));
    for (int i = 1; i < N; i++)
        CHECK_INT(outputs[0], outputs[i]);
}

TEST(where_fewer_processes_can_be_started_those_do_the_work) { in_child(map_with_one_process); }

static void map_without_descriptors(void) {
    int32_t outputs[N], statuses[N];
    pb_map_options options = {
        .struct_size = sizeof options, .statuses = statuses, .flags = PB_COLLECT_ERRORS};
    struct rlimit limit;
    CHECK_INT(0, getrlimit(RLIMIT_NOFILE, &limit));
    for (rlim_t most = 32;; most = 0) {
        limit.rlim_cur = most;
        CHECK_INT(0, setrlimit(RLIMIT_NOFILE, &limit));
        memset(outputs, 0xff, sizeof outputs);
        CHECK_OK(map_forked(most == 0 ? 3 : 40, square, NULL, N, outputs, NULL));
        for (int i = 0; i < N; i++)
            CHECK_INT(i * i, outputs[i]);
        CHECK_STATUS(map_forked(3, die_at_9, NULL, N, outputs, &options), PB_ERR_TASK_FAILED);
        CHECK_INT(PB_ERR_WORKER_LOST, statuses[9]);
        if (most == 0)
            break;
    }
}

TEST(maps_run_with_few_or_no_descriptors) { in_child(map_without_descriptors); }

static int32_t fill(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    return 0;
}

TEST(outputs_that_no_memory_can_hold_are_refused) {
    char *never_touched = (char *)(uintptr_t)4096;
    pb_scope scope = use_backend("multiprocessing", 2);
    CHECK_STATUS(pb_parallel_map(fill, NULL, (size_t)1 << 30, NULL, 0, never_touched, (size_t)1 << 32, NULL),
                 PB_ERR_OUT_OF_MEMORY);
    CHECK_TEXT("pb_alloc_shared");
    CHECK_OK(pb_pop_backend(scope));
    check_it_works();
}

static int32_t write_much(void *ctx, size_t index, const void *input, size_t size, pb_output *output) {
    static const size_t sizes[] = {1, 4 << 20, 200 << 10};
    static char bytes[4 << 20];
    (void)ctx, (void)input, (void)size;
    return pb_output_write(output, bytes, sizes[index]) == PB_OK ? 0 : 1;
}

static void map_with_small_files(void) {
    const struct rlimit limit = {1 << 20, 1 << 20};
    CHECK_INT(0, setrlimit(RLIMIT_FSIZE, &limit));
    const pb_scope scope = use_backend("multiprocessing", 2);
    int32_t statuses[3] = {-1, -1, -1};
    /* All are one worker's, in turn. */
    pb_map_options options = {.struct_size = sizeof options, .batch_size = 3, .flags = PB_COLLECT_ERRORS};
    options.statuses = statuses;
    pb_results *results = NULL;
    CHECK_STATUS(pb_map_bytes(write_much, NULL, 3, NULL, &options, &results), PB_ERR_TASK_FAILED);
    CHECK_TEXT("RLIMIT_FSIZE");
    for (int i = 0; i < 3; i++)
        CHECK_INT(i == 1, statuses[i]);
    pb_results_free(results);
    CHECK_OK(pb_pop_backend(scope));
}

TEST(a_result_that_is_too_large_takes_no_room_from_the_next) { in_child(map_with_small_files); }

/* ---- its threads and forks ---- */

static void *map_often(void *unused) {
    int32_t outputs[N];
    for (size_t round = rounds(5); round > 0; round--) {
        memset(outputs, 0xff, sizeof outputs);
        CHECK_OK(map_forked(2, square, NULL, N, outputs, NULL));
        for (int i = 0; i < N; i++)
            CHECK_INT(i * i, outputs[i]);
    }
    return unused;
}

TEST(fifty_threads_map_at_once) {
    enum { THREADS = 50 };
    const size_t count = rounds(THREADS);
    pthread_t threads[THREADS];
    for (size_t i = 0; i < count; i++)
        CHECK_INT(0, pthread_create(&threads[i], NULL, map_often, NULL));
    for (size_t i = 0; i < count; i++)
        CHECK_INT(0, pthread_join(threads[i], NULL));
    check_it_works();
}

static int32_t map_in_task(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input;
    int32_t outputs[N];
    memset(outputs, 0xff, sizeof outputs);
    if (map_forked(2, square, NULL, N, outputs, NULL) != PB_OK)
        return 1;
    for (int i = 0; i < N; i++)
        if (outputs[i] != i * i)
            return 2;
    *(int32_t *)output = (int32_t)getpid();
    return 0;
}

/* Forks of threads of the pool, beside each other; and of forks. */
TEST(tasks_on_threads_and_in_workers_may_fork_workers_of_their_own) {
    static const char *const backends[] = {"threading", "multiprocessing"};
    for (int b = 0; b < 2; b++)
        for (size_t round = rounds(10); round > 0; round--) {
            int32_t pids[8];
            pb_map_options options = {.struct_size = sizeof options, .batch_size = 1};
            pb_scope scope = use_backend(backends[b], 4);
            CHECK_OK(pb_parallel_map(map_in_task, NULL, 8, NULL, 0, pids, sizeof *pids, &options));
            CHECK_OK(pb_pop_backend(scope));
            for (int i = 0; i < 8; i++)
                CHECK_INT(b == 0, pids[i] == getpid());
        }
    check_it_works();
}

static void map_here_too(void) { check_it_works(); }

TEST(the_program_may_fork_while_a_map_runs) {
    pthread_t thread;
    for (size_t round = rounds(10); round > 0; round--) {
        CHECK_INT(0, pthread_create(&thread, NULL, map_often, NULL));
        in_child(map_here_too);
        CHECK_INT(0, pthread_join(thread, NULL));
    }
    check_it_works();
}

static pid_t forked_in_progress;

/* Forks in the middle of the map: the copy is in the map too, and has none of its workers. */
static int32_t fork_once(void *user, size_t done, size_t failed, size_t total, double elapsed) {
    (void)user, (void)done, (void)failed, (void)total, (void)elapsed;
    if (forked_in_progress == 0) {
        const pid_t child = fork();
        CHECK(child >= 0);
        forked_in_progress = child == 0 ? -1 : child;
    }
    return 0;
}

TEST(a_fork_in_a_callback_of_the_map_leaves_the_map_to_the_parent) {
    int32_t outputs[N * 10];
    pb_map_options options = {.struct_size = sizeof options, .progress = fork_once};
    const pb_status status = map_forked(2, own_pid, NULL, N * 10, outputs, &options);
    CHECK(forked_in_progress != 0);
    if (forked_in_progress == -1)
        _exit(status == PB_ERR_WORKER_LOST && strstr(pb_last_error(), "forked") != NULL ? 0 : 1);
    CHECK_INT(PB_OK, status);
    int ended = -1;
    CHECK_INT(forked_in_progress, waitpid(forked_in_progress, &ended, 0));
    CHECK(WIFEXITED(ended));
    CHECK_INT(0, WEXITSTATUS(ended));
}

int main(void) {
    RUN(no_worker_outlives_a_program_that_is_killed);
    RUN(an_interrupt_is_the_programs_and_leaves_workers_alone);
    RUN(a_program_that_reaps_every_child_disturbs_nothing);
    RUN(a_map_reaps_no_child_of_the_program);
    RUN(where_no_process_can_be_started_the_text_says_what_to_do);
    RUN(where_fewer_processes_can_be_started_those_do_the_work);
    RUN(maps_run_with_few_or_no_descriptors);
    RUN(outputs_that_no_memory_can_hold_are_refused);
    RUN(a_result_that_is_too_large_takes_no_room_from_the_next);
    RUN(fifty_threads_map_at_once);
    RUN(tasks_on_threads_and_in_workers_may_fork_workers_of_their_own);
    RUN(the_program_may_fork_while_a_map_runs);
    RUN(a_fork_in_a_callback_of_the_map_leaves_the_map_to_the_parent);
    CHECK_OK(pb_shutdown());
    return check_result();
}
