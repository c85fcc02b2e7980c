/* pinned.h: on which CPUs the workers of a map may run. */
#ifndef PINNED_H
#define PINNED_H

#include "sync.h"

#define MOST_WORKERS 8

static pthread_t caller;
static cpu_set_t allowed; /* the caller's mask */

static inline cpu_set_t mask_here(void) {
    cpu_set_t mask;
    CHECK_INT(0, sched_getaffinity(0, sizeof mask, &mask));
    return mask;
}

static inline pb_scope use_params(int32_t n_jobs, const char *params) {
    pb_scope scope = 0;
    CHECK_OK(pb_push_backend("threading", n_jobs, 0, params, &scope));
    return scope;
}

/* As many tasks as workers, which meet, so that each is on a worker of its own. */
typedef struct meeting {
    counter here;
    size_t n;
    int32_t cpus;                  /* that a pool thread counts */
    cpu_set_t masks[MOST_WORKERS]; /* by worker index; the caller's is empty */
} meeting;

static inline int32_t note_mask(void *ctx, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    meeting *m = ctx;
    counter_raise(&m->here);
    CHECK(counter_wait(&m->here, m->n));
    const cpu_set_t mask = mask_here();
    cpu_set_t common;
    CPU_AND(&common, &mask, &allowed);
    CHECK(CPU_EQUAL(&common, &mask));
    const int32_t me = pb_worker_index();
    REQUIRE(me >= 0 && me < MOST_WORKERS);
    if (pthread_equal(caller, pthread_self())) {
        CHECK(CPU_EQUAL(&mask, &allowed));
    } else {
        CHECK_INT(m->cpus, pb_cpu_count(0)); /* a pin of ours lowers no count */
        m->masks[me] = mask;
    }
    return 0;
}

/* Runs a map with a task on each worker. None may be outside the caller's mask, and the caller is left alone.
 */
static inline meeting masks_of(int32_t workers, int32_t cpus) {
    allowed = mask_here();
    meeting m = {.here = COUNTER, .n = (size_t)workers, .cpus = cpus};
    pb_map_options options = {.struct_size = sizeof options, .n_jobs = workers};
    CHECK_OK(pb_parallel_map(note_mask, &m, m.n, NULL, 0, NULL, 0, &options));
    const cpu_set_t after = mask_here();
    CHECK(CPU_EQUAL(&after, &allowed));
    return m;
}

static inline void check_free(int32_t workers) {
    meeting m = masks_of(workers, pb_cpu_count(0));
    for (int32_t i = 0; i < workers; i++)
        CHECK(CPU_COUNT(&m.masks[i]) == 0 || CPU_EQUAL(&m.masks[i], &allowed));
}

/* Each pool thread is on one core, and worker i on the same one in every map. */
static inline void check_pinned(int32_t workers) {
    static cpu_set_t cores[MOST_WORKERS];
    meeting m = masks_of(workers, pb_cpu_count(0));
    int32_t pinned = 0;
    for (int32_t i = 0; i < workers; i++) {
        if (CPU_COUNT(&m.masks[i]) == 0)
            continue;
        pinned++;
        if (pb_cpu_count(1) > 1)
            CHECK(CPU_COUNT(&m.masks[i]) < CPU_COUNT(&allowed));
        if (CPU_COUNT(&cores[i]) != 0)
            CHECK(CPU_EQUAL(&cores[i], &m.masks[i]));
        cores[i] = m.masks[i];
    }
    CHECK_INT(workers - 1, pinned);
}

typedef struct inner {
    counter here;
    size_t n;
    pthread_t outer;
} inner;

static inline int32_t check_helper_free(void *ctx, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    inner *m = ctx;
    counter_raise(&m->here);
    CHECK(counter_wait(&m->here, m->n));
    const cpu_set_t mask = mask_here();
    if (!pthread_equal(m->outer, pthread_self()))
        CHECK(CPU_EQUAL(&mask, &allowed));
    return 0;
}

/* In a task: a map whose workers, but for this thread, must have the caller's mask. */
static inline void masks_nested(int32_t workers) {
    inner m = {COUNTER, (size_t)workers, pthread_self()};
    pb_map_options options = {.struct_size = sizeof options, .n_jobs = workers, .flags = PB_PREFER_THREADS};
    CHECK_OK(pb_parallel_map(check_helper_free, &m, m.n, NULL, 0, NULL, 0, &options));
}

static inline int32_t nest(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    const cpu_set_t before = mask_here();
    masks_nested(2);
    const cpu_set_t after = mask_here();
    CHECK(CPU_EQUAL(&before, &after));
    return 0;
}

/* Pinned tasks, with a map inside each. */
static inline void check_nested(void) {
    allowed = mask_here();
    pb_map_options options = {.struct_size = sizeof options, .n_jobs = 2};
    for (int again = 0; again < 10; again++)
        CHECK_OK(pb_parallel_map(nest, NULL, 2, NULL, 0, NULL, 0, &options));
}

#endif
