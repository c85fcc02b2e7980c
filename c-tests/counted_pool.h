/* counted_pool.h: a native thread pool of the program's own, whose number of threads a task can read. */
#ifndef COUNTED_POOL_H
#define COUNTED_POOL_H

#include "scopes.h"

static int32_t pool_threads = 8;

static inline int32_t get_pool_threads(void *unused) {
    (void)unused;
    return pool_threads;
}

static inline void set_pool_threads(void *unused, int32_t n) {
    (void)unused;
    pool_threads = n;
}

/* Before the tests. */
static inline void register_counted_pool(void) {
    CHECK_OK(
        pb_register_thread_pool("blas", "testblas", get_pool_threads, set_pool_threads, NULL, "process"));
}

static inline int32_t read_pool_threads(void *seen, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    *(int32_t *)seen = pool_threads;
    return 0;
}

static inline int32_t pool_threads_in_a_task(void) {
    int32_t seen = -1;
    CHECK_OK(map_on(1, read_pool_threads, &seen, 1));
    return seen;
}

#endif
