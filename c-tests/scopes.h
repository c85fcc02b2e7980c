/* scopes.h: what the tests of scopes, tasks, threads and processes share. */
#ifndef SCOPES_H
#define SCOPES_H

#include "check.h"

#include <dirent.h>
#include <pthread.h>
#include <sched.h>
#include <time.h>

/* A scope that must open. */
static inline pb_scope open_scope(const char *backend, int32_t n_jobs) {
    pb_scope scope = 0;
    CHECK_OK(pb_push_backend(backend, n_jobs, 0, NULL, &scope));
    return scope;
}

static inline void close_scope(pb_scope scope) { CHECK_OK(pb_pop_backend(scope)); }

/* A map without arrays, with `n_jobs` workers (0: the context's) that take one item at a time. */
static inline pb_status map_on(int32_t n_jobs, pb_task_fn task, void *ctx, size_t n_items) {
    pb_map_options options = {.struct_size = sizeof options};
    options.n_jobs = n_jobs;
    options.batch_size = 1;
    return pb_parallel_map(task, ctx, n_items, NULL, 0, NULL, 0, &options);
}

/* Runs `work(arg)` on so many threads at once that the library did not start, 8 at most, and waits for them.
 */
static inline void on_other_threads(size_t count, void *(*work)(void *), void *arg) {
    pthread_t threads[8];
    CHECK(count <= sizeof threads / sizeof *threads);
    for (size_t i = 0; i < count; i++)
        CHECK_INT(0, pthread_create(&threads[i], NULL, work, arg));
    for (size_t i = 0; i < count; i++)
        CHECK_INT(0, pthread_join(threads[i], NULL));
}

static inline void on_another_thread(void *(*work)(void *), void *arg) { on_other_threads(1, work, arg); }

/* The tests set the variables that they need: those of the surroundings do not count. */
static inline void forget_environment(void) {
    const char *const variables[] = {"PB_BACKEND",       "PB_N_JOBS",      "PB_INNER_MAX_NUM_THREADS",
                                     "PB_MAX_CPU_COUNT", "PB_PLUGIN_PATH", "PB_TRACE"};
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++)
        CHECK_INT(0, unsetenv(variables[i]));
}

/* Sizes that memcheck gets through in time. */
static inline int times(int usually, int under_valgrind) {
    return getenv("PB_TEST_VALGRIND") != NULL ? under_valgrind : usually;
}

/* The threads that this process has now. */
static inline int count_threads(void) {
    DIR *tasks = opendir("/proc/self/task");
    CHECK(tasks != NULL);
    int count = 0;
    for (const struct dirent *entry; (entry = readdir(tasks)) != NULL;)
        count += entry->d_name[0] != '.';
    closedir(tasks);
    return count;
}

/* A thread that was joined may stay in the kernel's list for a moment. */
static inline void check_only_one_thread_is_left(void) {
    const time_t patience = time(NULL) + 30;
    while (count_threads() > 1) {
        CHECK(time(NULL) < patience);
        sched_yield();
    }
}

#endif
