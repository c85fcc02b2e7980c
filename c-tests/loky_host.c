/* What happens to the process that calls: killed, interrupted, forked, busy in many threads, nested, short of
 * resources. */
#include "child.h"
#include "sync.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

static int32_t add_one(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)input;
    *(int64_t *)output = (int64_t)index + 1;
    return 0;
}

static void check_map(size_t n) {
    int64_t *outputs = calloc(n, sizeof *outputs);
    CHECK(outputs != NULL);
    CHECK_OK(pb_parallel_map(add_one, NULL, n, NULL, 0, outputs, sizeof *outputs, NULL));
    for (size_t i = 0; i < n; ++i)
        CHECK_INT(i + 1, outputs[i]);
    free(outputs);
}

/* Does `work` in a child, which leaves no worker behind. */
static void in_clean_child(void (*work)(void)) {
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        alarm(60);
        work();
        CHECK_OK(pb_shutdown());
        _exit(0);
    }
    await(child);
}

/* ---- death of the caller ---- */

typedef struct note {
    int32_t pids[2];
} note;

static int32_t note_pid_and_stay(void *ctx, size_t index, const void *input, void *output) {
    (void)input, (void)output;
    __atomic_store_n(&((note *)ctx)->pids[index], (int32_t)getpid(), __ATOMIC_SEQ_CST);
    while (getpid() > 0)
        pause();
    return 0;
}

static int is_gone(int32_t pid) {
    const double end = seconds() + PATIENCE;
    while (kill(pid, 0) == 0) {
        waitpid(pid, NULL, WNOHANG); /* orphans come to us */
        if (seconds() > end)
            return 0;
        usleep(1000);
    }
    return 1;
}

/* loky: test_loky_module.py and others, sigkill_shutdown_leaks_workers */
TEST(when_the_caller_is_killed_its_workers_end_whatever_they_do) {
    void *block = NULL;
    CHECK_OK(pb_alloc_shared(sizeof(note), &block));
    note *n = block;
    CHECK_INT(0, prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
    const pid_t child = fork();
    if (child == 0) {
        use_backend("loky", 2);
        pb_map_options options = {.struct_size = sizeof options, .batch_size = 1, .ctx_size = sizeof *n};
        pb_parallel_map(note_pid_and_stay, n, 2, NULL, 0, NULL, 0, &options);
        _exit(1);
    }
    for (int i = 0; i < 2; ++i)
        while (__atomic_load_n(&n->pids[i], __ATOMIC_SEQ_CST) == 0)
            sched_yield();
    CHECK_INT(0, kill(child, SIGKILL));
    CHECK_INT(child, waitpid(child, NULL, 0));
    CHECK(is_gone(n->pids[0]) && is_gone(n->pids[1]));
    CHECK_INT(0, prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0));
    pb_free_shared(block);
}

/* ---- interrupts ---- */

static volatile sig_atomic_t interrupts;
static void on_interrupt(int signal) {
    (void)signal;
    ++interrupts;
}

static int32_t take_2_ms(void *ctx, size_t index, const void *input, void *output) {
    work_for(0.002);
    return add_one(ctx, index, input, output);
}

static void *interrupt_the_group(void *arg) {
    for (int i = 0; i < 5; ++i) {
        usleep(4000);
        kill(0, SIGINT); /* as a terminal does: all of the caller's process group */
        while (interrupts <= i)
            sched_yield(); /* two that wait together would be one */
    }
    return arg;
}

static void interrupted_maps(void) {
    setpgid(0, 0);
    struct sigaction action = {.sa_handler = on_interrupt};
    sigaction(SIGINT, &action, NULL);
    use_backend("loky", 2);
    check_map(10);
    pthread_t thread;
    CHECK_INT(0, pthread_create(&thread, NULL, interrupt_the_group, NULL));
    int64_t outputs[40] = {0};
    CHECK_OK(pb_parallel_map(take_2_ms, NULL, 40, NULL, 0, outputs, sizeof *outputs, NULL));
    pthread_join(thread, NULL);
    CHECK_INT(5, interrupts);
    for (int64_t i = 0; i < 40; ++i)
        CHECK_INT(i + 1, outputs[i]);
    check_map(10);
}

TEST(an_interrupt_is_for_the_caller_and_not_for_workers) { in_clean_child(interrupted_maps); }

/* ---- forks ---- */

static void map_again(void) { check_map(50); }

static void map_here_too(void) {
    check_map(50);
    in_clean_child(map_again);
    check_map(50);
}

static void add_one_to_few(pb_job **job) {
    int64_t outputs[10] = {0};
    const pb_status status =
        job == NULL ? pb_parallel_map(add_one, NULL, 10, NULL, 0, outputs, sizeof *outputs, NULL)
                    : pb_submit_map(add_one, NULL, 10, NULL, 0, outputs, sizeof *outputs, NULL, job);
    CHECK_OK(status);
    if (job != NULL) {
        CHECK_OK(pb_job_wait(*job, PATIENCE));
        pb_job_free(*job);
    }
    CHECK_INT(10, outputs[9]);
}

/* On the thread that drives the outer map, and on one that this one waits for. */
static int32_t map_in_callback(void *user, size_t done, size_t failed, size_t total, double elapsed) {
    (void)done, (void)failed, (void)total, (void)elapsed;
    pb_job *job = NULL;
    add_one_to_few(NULL);
    add_one_to_few(&job);
    ++*(int *)user;
    return 0;
}

TEST(a_progress_callback_may_call_maps_while_its_own_has_all_workers) {
    const pb_scope scope = use_backend("loky", 2);
    int calls = 0;
    int64_t outputs[100] = {0};
    const pb_map_options options = {
        .struct_size = sizeof options, .progress = map_in_callback, .progress_user = &calls};
    CHECK_OK(pb_parallel_map(take_2_ms, NULL, 100, NULL, 0, outputs, sizeof *outputs, &options));
    CHECK(calls >= 2);
    for (int64_t i = 0; i < 100; ++i)
        CHECK_INT(i + 1, outputs[i]);
    CHECK_OK(pb_pop_backend(scope));
}

/* Counts itself, and tells who it was. */
static int32_t count_me(void *ctx, size_t index, const void *input, void *output) {
    (void)index, (void)input;
    work_for(0.002);
    __atomic_add_fetch((int *)ctx, 1, __ATOMIC_SEQ_CST);
    *(int32_t *)output = (int32_t)getpid();
    return 0;
}

typedef struct forker {
    pid_t child; /* 0 in the child itself, -1 before the fork */
} forker;

/* Forks in the middle of the map, and lets the copy come to its end first. */
static int32_t fork_once(void *user, size_t done, size_t failed, size_t total, double elapsed) {
    (void)done, (void)failed, (void)total, (void)elapsed;
    forker *f = user;
    if (f->child != -1)
        return 0;
    f->child = fork();
    CHECK(f->child >= 0);
    if (f->child == 0) {
        alarm(60);
        return 0;
    }
    int ended = 0;
    CHECK_INT(f->child, waitpid(f->child, &ended, 0));
    CHECK(WIFSIGNALED(ended));
    CHECK_INT(SIGKILL, WTERMSIG(ended));
    return 0;
}

TEST(a_fork_in_a_callback_leaves_the_map_and_its_workers_to_the_parent) {
    enum { N = 60 };
    const pb_scope scope = use_backend("loky", 1);
    void *count = NULL;
    CHECK_OK(pb_alloc_shared(sizeof(int), &count));
    forker f = {.child = -1};
    int32_t pids[N + 1] = {0};
    pb_map_options options = {.struct_size = sizeof options, .batch_size = 1, .ctx_size = sizeof(int)};
    options.progress = fork_once;
    options.progress_user = &f;
    const pb_status status = pb_parallel_map(count_me, count, N, NULL, 0, pids, sizeof *pids, &options);
    if (f.child == 0) {
        /* By a signal: at an orderly exit memcheck would take what belonged to the parent's map for lost. */
        if (status == PB_ERR_WORKER_LOST && strstr(pb_last_error(), "forked") != NULL)
            raise(SIGKILL);
        _exit(1);
    }
    CHECK(f.child > 0);
    CHECK_INT(PB_OK, status);
    options.progress = NULL;
    CHECK_OK(pb_parallel_map(count_me, count, 1, NULL, 0, pids + N, sizeof *pids, &options));
    CHECK_INT(N + 1, *(int *)count);
    for (int i = 0; i < N; ++i)
        CHECK_INT(pids[N], pids[i]);
    pb_free_shared(count);
    CHECK_OK(pb_pop_backend(scope));
}

TEST(a_fork_has_workers_of_its_own) {
    const pb_scope scope = use_backend("loky", 2);
    for (int i = 0; i < 3; ++i) {
        check_map(50);
        in_clean_child(map_here_too);
        check_map(50);
    }
    CHECK_OK(pb_pop_backend(scope));
}

/* ---- many callers ---- */

static void *call_maps(void *arg) {
    const pb_scope scope = use_backend("loky", 1 + (int32_t)(size_t)arg % 3);
    for (int round = 0; round < 5; ++round)
        check_map(20);
    CHECK_OK(pb_pop_backend(scope));
    return NULL;
}

/* loky: test_reusable_executor.py::test_reusable_executor_thread_safety */
TEST(fifty_threads_share_the_workers) {
    enum { THREADS = 50 };
    pthread_t threads[THREADS];
    for (size_t i = 0; i < THREADS; ++i)
        CHECK_INT(0, pthread_create(&threads[i], NULL, call_maps, (void *)i));
    for (size_t i = 0; i < THREADS; ++i)
        CHECK_INT(0, pthread_join(threads[i], NULL));
}

/* ---- nesting ---- */

static int32_t nest(void *ctx, size_t index, const void *input, void *output) {
    int32_t depth = *(int32_t *)ctx - 1;
    if (depth == 0)
        return add_one(NULL, index, input, output);
    pb_scope scope = 0;
    int64_t inner[2] = {0, 0};
    const pb_map_options options = {.struct_size = sizeof options, .ctx_size = sizeof depth};
    if (pb_push_backend("loky", 1, 0, NULL, &scope) != PB_OK)
        return -1;
    const pb_status status = pb_parallel_map(nest, &depth, 2, NULL, 0, inner, sizeof *inner, &options);
    pb_pop_backend(scope);
    if (status != PB_OK) {
        pb_task_fail(pb_last_error());
        return 2;
    }
    *(int64_t *)output = inner[0] + inner[1];
    return 0;
}

static pb_status nest_to(int32_t depth, int64_t *output) {
    const pb_scope scope = use_backend("loky", 1);
    const pb_map_options options = {.struct_size = sizeof options, .ctx_size = sizeof depth};
    const pb_status status = pb_parallel_map(nest, &depth, 1, NULL, 0, output, sizeof *output, &options);
    CHECK_OK(pb_pop_backend(scope));
    return status;
}

/* loky: test_process_executor.py::test_max_depth */
TEST(workers_may_have_workers_but_not_without_end) {
    int64_t output = 0;
    CHECK_STATUS(nest_to(3, &output), PB_OK);
    CHECK_INT(6, output);
    CHECK_STATUS(nest_to(11, &output), PB_ERR_TASK_FAILED);
    CHECK_TEXT("nested 10 deep");
}

/* ---- limits of the system ---- */

static void limit(int what, rlim_t value) {
    struct rlimit wanted;
    CHECK_INT(0, getrlimit(what, &wanted));
    wanted.rlim_cur = value;
    CHECK_INT(0, setrlimit(what, &wanted));
}

static void map_or_say_why(const char *why) {
    int64_t outputs[10] = {0};
    const pb_status status = pb_parallel_map(add_one, NULL, 10, NULL, 0, outputs, sizeof *outputs, NULL);
    if (status == PB_OK)
        return;
    CHECK(status == PB_ERR_BACKEND_UNAVAILABLE || status == PB_ERR_OUT_OF_MEMORY);
    CHECK_TEXT(why);
}

static void few_descriptors(void) {
    limit(RLIMIT_NOFILE, 32);
    use_backend("loky", 2);
    check_map(100);
    CHECK_OK(pb_shutdown());
    int last = 0;
    for (int fd; (fd = dup(0)) >= 0;)
        last = fd;
    map_or_say_why("files");
    for (int free_fds = 0; free_fds < 12; ++free_fds)
        close(last - free_fds);
    check_map(100);
}

static void no_processes(void) {
    limit(RLIMIT_NPROC, 1); /* does not bind root */
    use_backend("loky", 2);
    map_or_say_why("processes");
}

static int32_t ignore(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    return 0;
}

static void small_files(void) {
    use_backend("loky", 2);
    check_map(10);
    limit(RLIMIT_FSIZE, 1 << 20);
    check_map(10);
    static char large[2][4 << 20];
    CHECK_STATUS(pb_parallel_map(ignore, NULL, 2, large, sizeof *large, NULL, 0, NULL), PB_ERR_OUT_OF_MEMORY);
    CHECK_TEXT("RLIMIT_FSIZE");
    check_map(10);
}

TEST(where_the_system_refuses_the_error_says_what) {
    in_clean_child(few_descriptors);
    in_clean_child(no_processes);
    in_clean_child(small_files);
}

/* ---- programs that are no workers ---- */

static void check_unavailable(const char *worker, const char *text) {
    CHECK_INT(0, setenv("PB_WORKER", worker, 1));
    int64_t outputs[4];
    CHECK_STATUS(pb_parallel_map(add_one, NULL, 4, NULL, 0, outputs, sizeof *outputs, NULL),
                 PB_ERR_BACKEND_UNAVAILABLE);
    CHECK_TEXT(text);
    CHECK_TEXT(worker);
    CHECK_INT(0, unsetenv("PB_WORKER"));
}

static void write_file(const char *path, const char *text, mode_t mode) {
    FILE *file = fopen(path, "w");
    CHECK(file != NULL && fputs(text, file) >= 0 && fclose(file) == 0);
    CHECK_INT(0, chmod(path, mode));
}

static void wrong_workers(void) {
    char folder[] = "/tmp/pb-worker-XXXXXX", path[64];
    CHECK(mkdtemp(folder) != NULL);
    snprintf(path, sizeof path, "%s/worker", folder);
    use_backend("loky", 2);
    /* Under memcheck a failed exec ends the child instead. */
    const int hides_exec = getenv("PB_TEST_VALGRIND") != NULL;
    check_unavailable(path, hides_exec ? "code 127" : "no such file");
    write_file(path, "#!/bin/sh\nexit 4\n", 0644);
    check_unavailable(path, hides_exec ? "code 127" : "executable");
    chmod(path, 0755);
    check_unavailable(path, "exited with code 4");
    /* As pb-worker of another version would begin. */
    write_file(path, "#!/bin/bash\nprintf 'pb 9.9.9' >&3\nsleep 5\n", 0755);
    check_unavailable(path, "version 9.9.9");
    unlink(path);
    rmdir(folder);
    check_map(10);
}

TEST(a_program_that_is_no_worker_is_named) { in_clean_child(wrong_workers); }

int main(int argc, char **argv) {
    pb_worker_main(argc, argv);
    unsetenv("PB_WORKER");
    RUN(when_the_caller_is_killed_its_workers_end_whatever_they_do);
    RUN(an_interrupt_is_for_the_caller_and_not_for_workers);
    RUN(a_fork_has_workers_of_its_own);
    RUN(fifty_threads_share_the_workers);
    RUN(workers_may_have_workers_but_not_without_end);
    RUN(where_the_system_refuses_the_error_says_what);
    RUN(a_program_that_is_no_worker_is_named);
    /* Last: what these leave to pool threads memcheck would take for lost in a forked child that exits. */
    RUN(a_progress_callback_may_call_maps_while_its_own_has_all_workers);
    RUN(a_fork_in_a_callback_leaves_the_map_and_its_workers_to_the_parent);
    CHECK_OK(pb_shutdown());
    return check_result();
}
