/* forked.h: what the tests of the backend "multiprocessing" share. */
#ifndef FORKED_H
#define FORKED_H

#include "sync.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* Memory that tasks share with the test, all zero. */
static inline void *shared(size_t size) {
    void *block = NULL;
    REQUIRE(pb_alloc_shared(size, &block) == PB_OK);
    return block;
}

static inline int raise_by_1(int *count) { return __atomic_add_fetch(count, 1, __ATOMIC_SEQ_CST); }
static inline int look_at(const int *value) { return __atomic_load_n(value, __ATOMIC_SEQ_CST); }
static inline void store(int *value, int new_value) { __atomic_store_n(value, new_value, __ATOMIC_SEQ_CST); }

/* Waits until a value that another process writes is `wanted` or more; 0 when patience is over. */
static inline int wait_for(const int *value, int wanted) {
    const double end = seconds() + PATIENCE;
    while (look_at(value) < wanted) {
        if (seconds() > end)
            return 0;
        sched_yield();
    }
    return 1;
}

/* Seconds: far above what a quick item can take on a loaded machine. */
static inline double item_limit(void) { return getenv("PB_TEST_VALGRIND") != NULL ? 5 : 1; }

/* A map of `n` items on forked workers. */
static inline pb_status map_forked(int32_t n_jobs, pb_task_fn fn, void *ctx, size_t n, int32_t *outputs,
                                   const pb_map_options *given) {
    pb_map_options options = {.struct_size = sizeof options};
    if (given != NULL)
        options = *given;
    pb_scope scope = use_backend("multiprocessing", n_jobs);
    const pb_status status = pb_parallel_map(fn, ctx, n, NULL, 0, outputs, sizeof *outputs, &options);
    CHECK_OK(pb_pop_backend(scope));
    return status;
}

static inline int32_t square(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)input;
    *(int32_t *)output = (int32_t)(index * index);
    return 0;
}

/* Whatever happened before, the backend works and has left no child. */
static inline void check_it_works(void) {
    enum { N = 50 };
    int32_t outputs[N];
    memset(outputs, 0xff, sizeof outputs);
    CHECK_OK(map_forked(2, square, NULL, N, outputs, NULL));
    for (int i = 0; i < N; i++)
        CHECK_INT(i * i, outputs[i]);
    CHECK_INT(-1, waitpid(-1, NULL, WNOHANG));
    CHECK_INT(ECHILD, errno);
}

#endif
