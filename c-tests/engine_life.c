/* Maps on the engine "echo", and the life of the bridge to it: shared, idle, killed, forked, shut down; and
 * what happens to the process that calls. */
#include "child.h"
#include "engine.h"

#include <fcntl.h>
#include <sys/prctl.h>

#define ECHO "address=echo;threads=2"

static int32_t of_the_program(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    return 0;
}

/* ---- what can be sent ---- */

TEST(a_task_of_the_program_is_refused_and_the_text_says_what_to_do) {
    const pb_scope scope = push_engine(-1, ECHO);
    CHECK_STATUS(pb_parallel_map(of_the_program, NULL, 3, NULL, 0, NULL, 0, NULL), PB_ERR_TASK_NOT_PORTABLE);
    CHECK_TEXT("put it into a shared library");
    CHECK_OK(pb_pop_backend(scope));
}

TEST(dask_does_not_promise_what_it_cannot_keep) {
    const pb_scope scope = push_engine(-1, ECHO);
    int64_t outputs[ITEMS];
    pb_map_options options = {.struct_size = sizeof options, .flags = PB_NON_IDEMPOTENT};
    CHECK_STATUS(map_add_one(outputs, &options), PB_ERR_UNSUPPORTED);
    CHECK_TEXT("use backend 'ray'");
    CHECK_OK(pb_pop_backend(scope));
}

TEST(a_cluster_must_be_named) {
    pb_scope scope = 0;
    CHECK_STATUS(pb_push_backend("dask", -1, 0, NULL, &scope), PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("address=tcp://HOST:PORT");
}

/* ---- no Python ---- */

TEST(without_python_the_text_says_where_it_was_looked_for) {
    pb_scope scope = push_engine(-1, "address=echo;python=/nowhere/python3");
    int64_t outputs[ITEMS];
    CHECK_STATUS(map_add_one(outputs, NULL), PB_ERR_BACKEND_UNAVAILABLE);
    CHECK_TEXT("'/nowhere/python3'");
    CHECK_TEXT("PB_PYTHON");
    CHECK_OK(pb_pop_backend(scope));
    CHECK_INT(0, setenv("PB_PYTHON", "/bin/false", 1));
    scope = push_engine(-1, ECHO);
    CHECK_STATUS(map_add_one(outputs, NULL), PB_ERR_BACKEND_UNAVAILABLE);
    CHECK_TEXT("'/bin/false', which exited with code 1");
    CHECK_OK(pb_pop_backend(scope));
    CHECK_INT(0, unsetenv("PB_PYTHON"));
}

/* ---- workers ---- */

TEST(all_workers_are_those_of_the_engine) {
    const pb_scope scope = push_engine(-1, "address=echo;threads=5");
    CHECK_INT(5, pb_effective_n_jobs(0));
    CHECK_INT(4, pb_effective_n_jobs(-2));
    CHECK_INT(3, pb_effective_n_jobs(3));
    CHECK_INT(5, pb_effective_n_jobs(100));
    CHECK_OK(pb_pop_backend(scope));
}

/* ---- ctx and results ---- */

TEST(a_large_ctx_reaches_every_item) {
    const pb_scope scope = push_engine(-1, ECHO);
    const size_t sizes[] = {100, 5000, 300000, 8 << 20};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; ++s) {
        unsigned char *ctx = malloc(sizes[s]);
        CHECK(ctx != NULL);
        int64_t expected = 0, inputs[ITEMS], outputs[ITEMS];
        for (size_t i = 0; i < sizes[s]; ++i)
            expected += ctx[i] = (unsigned char)(i * 7 + s);
        for (int i = 0; i < ITEMS; ++i)
            inputs[i] = (int64_t)sizes[s];
        const pb_map_options options = {.struct_size = sizeof options, .ctx_size = sizes[s]};
        CHECK_OK(pb_parallel_map(engine_task("sum_ctx"), ctx, ITEMS, inputs, sizeof *inputs, outputs,
                                 sizeof *outputs, &options));
        for (int i = 0; i < ITEMS; ++i)
            CHECK_INT(expected + i, outputs[i]);
        free(ctx);
    }
    CHECK_OK(pb_pop_backend(scope));
}

TEST(large_results_come_back_whole) {
    const pb_scope scope = push_engine(-1, ECHO);
    void *symbol = engine_symbol("grow");
    pb_bytes_fn grow;
    memcpy(&grow, &symbol, sizeof grow);
    uint64_t sizes[6] = {0, 1, 1000, 1 << 20, (1 << 20) + 1, 9 << 20};
    pb_bytes inputs[6];
    for (int i = 0; i < 6; ++i)
        inputs[i] = (pb_bytes){&sizes[i], sizeof *sizes};
    pb_results *results = NULL;
    CHECK_OK(pb_map_bytes(grow, NULL, 6, inputs, NULL, &results));
    for (size_t i = 0; i < 6; ++i) {
        pb_bytes result;
        CHECK_OK(pb_results_get(results, i, &result));
        CHECK_INT(sizes[i], result.size);
        const unsigned char *bytes = result.data;
        CHECK(result.size == 0 || (bytes[0] == sizes[i] % 251 && bytes[result.size - 1] == sizes[i] % 251));
    }
    pb_results_free(results);
    CHECK_OK(pb_pop_backend(scope));
}

/* ---- one bridge for all who ask alike ---- */

static void *call_maps(void *arg) {
    const pb_scope scope = push_engine(1 + (int32_t)(size_t)arg % 3, ECHO);
    for (int round = 0; round < 5; ++round)
        check_add_one();
    CHECK_OK(pb_pop_backend(scope));
    return NULL;
}

TEST(threads_share_a_bridge) {
    enum { THREADS = 8 };
    CHECK_OK(pb_shutdown());
    pthread_t threads[THREADS];
    for (size_t i = 0; i < THREADS; ++i)
        CHECK_INT(0, pthread_create(&threads[i], NULL, call_maps, (void *)i));
    for (size_t i = 0; i < THREADS; ++i)
        CHECK_INT(0, pthread_join(threads[i], NULL));
    (void)only_child_of(getpid());
}

TEST(two_sessions_have_a_bridge_each) {
    CHECK_OK(pb_shutdown());
    const pb_scope outer = push_engine(-1, ECHO);
    check_add_one();
    const pb_scope inner = push_engine(-1, "address=echo;threads=3");
    check_add_one();
    pid_t pids[3];
    CHECK_INT(2, children_of(getpid(), pids, 3));
    CHECK_INT(3, pb_effective_n_jobs(0));
    CHECK_OK(pb_pop_backend(inner));
    CHECK_INT(2, pb_effective_n_jobs(0));
    check_add_one();
    CHECK_OK(pb_pop_backend(outer));
}

TEST(a_bridge_that_nobody_uses_ends) {
    CHECK_OK(pb_shutdown());
    const pb_scope scope = push_engine(-1, ECHO ";idle_timeout=0.1");
    check_add_one();
    const double end = seconds() + PATIENCE;
    pid_t pid;
    while (children_of(getpid(), &pid, 1) > 0)
        CHECK(seconds() < end);
    check_add_one();
    CHECK_OK(pb_pop_backend(scope));
}

TEST(a_shutdown_ends_it_and_the_next_call_starts_one) {
    const pb_scope scope = push_engine(-1, ECHO);
    for (int round = 0; round < 3; ++round) {
        check_add_one();
        CHECK_OK(pb_shutdown());
        pid_t pid;
        CHECK_INT(0, children_of(getpid(), &pid, 1));
    }
    CHECK_OK(pb_pop_backend(scope));
}

static void *map_for_a_while(void *arg) {
    const pb_scope scope = push_engine(-1, ECHO);
    double time = 0.05;
    int64_t outputs[6];
    const pb_map_options options = {.struct_size = sizeof options, .ctx_size = sizeof time, .batch_size = 1};
    CHECK_OK(
        pb_parallel_map(engine_task("take_time"), &time, 6, NULL, 0, outputs, sizeof *outputs, &options));
    CHECK_INT(6, outputs[5]);
    CHECK_OK(pb_pop_backend(scope));
    return arg;
}

TEST(a_shutdown_in_the_middle_of_a_map_does_not_disturb_it) {
    pthread_t thread;
    CHECK_INT(0, pthread_create(&thread, NULL, map_for_a_while, NULL));
    for (int i = 0; i < 20; ++i) {
        CHECK_OK(pb_shutdown());
        usleep(10000);
    }
    CHECK_INT(0, pthread_join(thread, NULL));
    CHECK_OK(pb_shutdown());
}

/* ---- deaths ---- */

TEST(a_bridge_that_is_killed_is_replaced) {
    const pb_scope scope = push_engine(-1, ECHO);
    check_add_one();
    for (int round = 0; round < 3; ++round) {
        CHECK_INT(0, kill(only_child_of(getpid()), SIGKILL));
        int64_t outputs[ITEMS];
        const pb_status status = map_add_one(outputs, NULL);
        CHECK(status == PB_OK ||
              status == PB_ERR_WORKER_LOST); /* as the news of its death has come, or not */
        check_add_one();
    }
    CHECK_OK(pb_pop_backend(scope));
}

static char begun[] = "/tmp/pb-engine-XXXXXX";

static void wait_until_begun(void) {
    char line[9];
    const double end = seconds() + PATIENCE;
    for (int has_begun = 0; !has_begun;) {
        FILE *file = fopen(begun, "r");
        has_begun = file != NULL && fgets(line, sizeof line, file) != NULL;
        if (file != NULL)
            fclose(file);
        CHECK(seconds() < end);
        usleep(1000);
    }
}

static void *kill_the_bridge(void *arg) {
    wait_until_begun();
    CHECK_INT(0, kill(only_child_of(getpid()), SIGKILL));
    return arg;
}

static pb_status map_until_cancelled(pb_job **job) {
    const pb_map_options options = {.struct_size = sizeof options, .ctx_size = sizeof begun};
    CHECK_INT(0, truncate(begun, 0));
    if (job != NULL)
        return pb_submit_map(engine_task("until_cancelled"), begun, 9, NULL, 0, NULL, 0, &options, job);
    return pb_parallel_map(engine_task("until_cancelled"), begun, 9, NULL, 0, NULL, 0, &options);
}

TEST(a_bridge_that_is_killed_in_the_middle_ends_its_maps_at_once) {
    CHECK_OK(pb_shutdown());
    const pb_scope scope = push_engine(-1, ECHO);
    check_add_one();
    pthread_t thread;
    CHECK_INT(0, truncate(begun, 0));
    CHECK_INT(0, pthread_create(&thread, NULL, kill_the_bridge, NULL));
    const double begin = seconds();
    CHECK_STATUS(map_until_cancelled(NULL), PB_ERR_WORKER_LOST);
    CHECK_TEXT("was killed by signal 9");
    CHECK(seconds() - begin < PATIENCE);
    CHECK_INT(0, pthread_join(thread, NULL));
    check_add_one();
    CHECK_OK(pb_pop_backend(scope));
}

/* ---- cancel ---- */

TEST(a_cancelled_map_stops_its_tasks) {
    const pb_scope scope = push_engine(-1, ECHO);
    for (int round = 0; round < 3; ++round) {
        pb_job *job = NULL;
        CHECK_OK(map_until_cancelled(&job));
        wait_until_begun();
        CHECK_OK(pb_job_cancel(job));
        CHECK_STATUS(pb_job_wait(job, -1), PB_ERR_CANCELLED);
        pb_job_free(job);
        check_add_one(); /* the slots are free again */
    }
    CHECK_OK(pb_pop_backend(scope));
}

TEST(what_does_not_stop_is_told_and_writes_nothing_after_the_end) {
    const pb_scope scope = push_engine(-1, ECHO);
    double time = 8;
    int64_t outputs[2] = {-1, -1};
    pb_job *job = NULL;
    const pb_map_options options = {.struct_size = sizeof options, .ctx_size = sizeof time};
    CHECK_OK(
        pb_submit_map(engine_task("take_time"), &time, 2, NULL, 0, outputs, sizeof *outputs, &options, &job));
    CHECK_OK(pb_job_cancel(job));
    const double begin = seconds();
    CHECK_STATUS(pb_job_wait(job, -1), PB_ERR_CANCELLED);
    CHECK(seconds() - begin < 8 + PATIENCE);
    pb_job_free(job);
    CHECK_INT(-1, outputs[0]);
    CHECK_OK(pb_pop_backend(scope));
    CHECK_OK(pb_shutdown());
}

/* ---- forks, and the death of the caller ---- */

TEST(a_fork_has_a_bridge_of_its_own) {
    const pb_scope scope = push_engine(-1, ECHO);
    check_add_one();
    const pid_t ours = only_child_of(getpid()), child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        alarm(60);
        check_add_one();
        CHECK(only_child_of(getpid()) != ours);
        CHECK_OK(pb_shutdown());
        _exit(0);
    }
    await(child);
    check_add_one();
    CHECK_INT(ours, only_child_of(getpid()));
    CHECK_OK(pb_pop_backend(scope));
}

TEST(a_caller_that_is_killed_leaves_nothing_behind) {
    CHECK_INT(0, prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
    CHECK_INT(0, truncate(begun, 0));
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        push_engine(-1, ECHO);
        map_until_cancelled(NULL);
        _exit(1);
    }
    wait_until_begun();
    const pid_t bridge = only_child_of(child);
    CHECK_INT(0, kill(child, SIGKILL));
    CHECK_INT(child, waitpid(child, NULL, 0));
    CHECK(ends(bridge));
    CHECK_INT(0, prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0));
}

TEST(nothing_in_the_arguments_of_the_bridge_tells_where_the_cluster_is) {
    const pb_scope scope = push_engine(-1, "address=echo;threads=4321;idle_timeout=77");
    (void)pb_effective_n_jobs(0);
    pid_t pids[9];
    const int count = children_of(getpid(), pids, 9);
    CHECK(count > 0);
    for (int i = 0; i < count; ++i) {
        char path[99], arguments[9999];
        snprintf(path, sizeof path, "/proc/%d/cmdline", pids[i]);
        FILE *file = fopen(path, "r");
        CHECK(file != NULL);
        const size_t size = fread(arguments, 1, sizeof arguments, file);
        fclose(file);
        CHECK(size > 0 && memmem(arguments, size, "4321", 4) == NULL &&
              memmem(arguments, size, "echo", 4) == NULL);
    }
    CHECK_OK(pb_pop_backend(scope));
}

/* Whether a process has a file open. */
static int has_open(pid_t pid, const char *file) {
    char path[300], target[300];
    snprintf(path, sizeof path, "/proc/%d/fd", pid);
    DIR *descriptors = opendir(path);
    CHECK(descriptors != NULL);
    int found = 0;
    for (const struct dirent *entry; (entry = readdir(descriptors)) != NULL;) {
        snprintf(path, sizeof path, "/proc/%d/fd/%s", pid, entry->d_name);
        const ssize_t length = readlink(path, target, sizeof target - 1);
        target[length < 0 ? 0 : length] = 0;
        found |= strcmp(target, file) == 0;
    }
    closedir(descriptors);
    return found;
}

TEST(the_bridge_keeps_no_file_of_the_program_open) {
    CHECK_OK(pb_shutdown());
    const int file = open(begun, O_RDONLY); /* without O_CLOEXEC */
    CHECK(file >= 0);
    const pb_scope scope = push_engine(-1, ECHO);
    check_add_one();
    CHECK(has_open(getpid(), begun));
    CHECK(!has_open(only_child_of(getpid()), begun));
    CHECK_OK(pb_pop_backend(scope));
    close(file);
}

int main(void) {
    const int file = mkstemp(begun);
    CHECK(file >= 0);
    close(file);
    RUN(a_task_of_the_program_is_refused_and_the_text_says_what_to_do);
    RUN(dask_does_not_promise_what_it_cannot_keep);
    RUN(a_cluster_must_be_named);
    RUN(without_python_the_text_says_where_it_was_looked_for);
    RUN(all_workers_are_those_of_the_engine);
    RUN(a_large_ctx_reaches_every_item);
    RUN(large_results_come_back_whole);
    RUN(threads_share_a_bridge);
    RUN(two_sessions_have_a_bridge_each);
    RUN(a_bridge_that_nobody_uses_ends);
    RUN(a_shutdown_ends_it_and_the_next_call_starts_one);
    RUN(a_shutdown_in_the_middle_of_a_map_does_not_disturb_it);
    RUN(a_bridge_that_is_killed_is_replaced);
    RUN(a_bridge_that_is_killed_in_the_middle_ends_its_maps_at_once);
    RUN(a_cancelled_map_stops_its_tasks);
    RUN(what_does_not_stop_is_told_and_writes_nothing_after_the_end);
    RUN(a_fork_has_a_bridge_of_its_own);
    RUN(a_caller_that_is_killed_leaves_nothing_behind);
    RUN(nothing_in_the_arguments_of_the_bridge_tells_where_the_cluster_is);
    RUN(the_bridge_keeps_no_file_of_the_program_open);
    CHECK_OK(pb_shutdown());
    unlink(begun);
    return check_result();
}
