/* conformance.h: what the files of the conformance suite share.
 *
 * The suite is what any backend must hold, whatever it is made of. It runs as
 *
 *     conformance BACKEND [--plugin FILE] [--params TEXT] [--slow] [--separate-memory | --forked]
 *
 * Where tasks run in other processes (--separate-memory) a task knows no more than its ctx, whose size every
 * call gives, and its input; it reports through its output and the code that it returns. So all tasks here
 * are written, except those of tests that are run by RUN_SHARED: these look at the caller's own memory from
 * inside a task, and are for backends whose tasks run in this process. Tests that are run by RUN_INHERITED
 * need only what the caller has set up: they are also for backends whose workers are forks of it (--forked).
 */
#ifndef CONFORMANCE_H
#define CONFORMANCE_H

#include "../check.h"
#include "../gate.h"
#include <pthread.h>
#include <sched.h>
#include <time.h>

struct suite {
    const char *backend;
    const char *params; /* for pb_push_backend */
    int shares_memory;
    int inherits; /* what the caller has set up is there in tasks */
    int is_slow;  /* under valgrind, or where a map takes long: fewer and smaller maps */
};
extern struct suite suite;

/* A test that needs the memory of caller and tasks to be the same. */
#define RUN_SHARED(name)                                                                                     \
    do {                                                                                                     \
        if (suite.shares_memory)                                                                             \
            RUN(name);                                                                                       \
    } while (0)

#define RUN_INHERITED(name)                                                                                  \
    do {                                                                                                     \
        if (suite.inherits)                                                                                  \
            RUN(name);                                                                                       \
    } while (0)

/* One for each file of the suite. */
void test_results(void);
void test_errors(void);
void test_stopping(void);
void test_jobs(void);
void test_context(void);
void test_limits(void);
void test_threads(void);
void test_joins(void);
void test_bytes(void);

/* A backend in plain C, to be tested like the others: conformance/cbackend.c. */
pb_status register_cbackend(void);
/* The same without shared memory: conformance/remote.c. */
pb_status register_remote(void);

/* Opens a scope with the backend under test. */
static inline pb_scope use_backend(int32_t n_jobs) {
    pb_scope scope = 0;
    CHECK(pb_push_backend(suite.backend, n_jobs, 0, suite.params, &scope) == PB_OK);
    return scope;
}

static inline pb_map_options with_ctx_size(size_t size) {
    pb_map_options options = {.struct_size = sizeof options};
    options.ctx_size = size;
    return options;
}

/* A map with one worker runs on the calling thread as a plain loop would, if it runs in this process. */
static inline int runs_alone(void) { return suite.shares_memory && pb_effective_n_jobs(0) == 1; }

static inline double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* For tasks: whether they were asked to stop, before a time that only a defect can use up. */
static inline int wait_until_cancelled(void) {
    const double end = seconds() + 30;
    while (seconds() < end) {
        if (pb_cancelled())
            return 1;
        sched_yield();
    }
    return 0;
}

#endif
