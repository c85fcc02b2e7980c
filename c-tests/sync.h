/* sync.h: what tests with threads share. Threads wait for conditions; the cap on a wait is only there so that
 * a broken library fails the test instead of stopping it.
 */
#ifndef SYNC_H
#define SYNC_H

#include "check.h"

#include <pthread.h>
#include <sched.h>
#include <time.h>

/* Seconds after which a wait has failed. */
#define PATIENCE 20.0

static inline double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Keeps the thread busy for a while. */
static inline void work_for(double duration) {
    const double end = seconds() + duration;
    while (seconds() < end) {
    }
}

/* `n`, or less where memcheck makes everything slow. */
static inline size_t rounds(size_t n) { return getenv("PB_TEST_VALGRIND") != NULL ? (n + 9) / 10 : n; }

/* A number that threads raise, and wait for. */
typedef struct counter {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    size_t value;
} counter;

#define COUNTER                                                                                              \
    { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0 }

/* Adds one; the value before. */
static inline size_t counter_raise(counter *c) {
    pthread_mutex_lock(&c->mutex);
    const size_t before = c->value++;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->mutex);
    return before;
}

static inline size_t counter_get(counter *c) {
    pthread_mutex_lock(&c->mutex);
    const size_t value = c->value;
    pthread_mutex_unlock(&c->mutex);
    return value;
}

/* Waits until the value is `wanted` or more; 0 when patience is over. */
static inline int counter_wait(counter *c, size_t wanted) {
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += (time_t)PATIENCE;
    int late = 0;
    pthread_mutex_lock(&c->mutex);
    while (c->value < wanted && late == 0)
        late = pthread_cond_timedwait(&c->changed, &c->mutex, &end);
    const int reached = c->value >= wanted;
    pthread_mutex_unlock(&c->mutex);
    return reached;
}

/* In a task: waits until it is asked to stop; 0 when patience is over. */
static inline int wait_cancelled(void) {
    const double end = seconds() + PATIENCE;
    while (!pb_cancelled()) {
        if (seconds() > end)
            return 0;
        sched_yield();
    }
    return 1;
}

/* Submits a map of one item and cancels it once `begun` is no longer 0. */
static inline void cancel_once_begun(pb_task_fn task, void *ctx, const int32_t *begun) {
    const double end = seconds() + PATIENCE;
    pb_job *job = NULL;
    REQUIRE(pb_submit_map(task, ctx, 1, NULL, 0, NULL, 0, NULL, &job) == PB_OK);
    while (__atomic_load_n(begun, __ATOMIC_RELAXED) == 0 && seconds() < end)
        sched_yield();
    CHECK_OK(pb_job_cancel(job));
    CHECK_OK(pb_job_wait(job, -1));
    pb_job_free(job);
}

/* A scope with this backend, which must be there. */
static inline pb_scope use_backend(const char *backend, int32_t n_jobs) {
    pb_scope scope = 0;
    REQUIRE(pb_push_backend(backend, n_jobs, 0, NULL, &scope) == PB_OK);
    return scope;
}

/* Details of the last error. */
static inline pb_error_info last_info(void) {
    pb_error_info info = {.struct_size = sizeof info};
    CHECK_OK(pb_last_error_info(&info));
    return info;
}

#endif
