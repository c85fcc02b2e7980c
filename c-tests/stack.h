/* stack.h: tasks that go deep. */
#ifndef STACK_H
#define STACK_H

#include "sync.h"

/* Twice what a thread has by default. */
#define DEEP     ((size_t)16 << 20)
#define ONE_STEP ((size_t)64 << 10)

/* Uses `left` bytes of stack. The sum keeps the compiler from doing without. */
static inline size_t descend(size_t left) {
    volatile char room[ONE_STEP];
    room[0] = room[ONE_STEP - 1] = 1;
    return left < ONE_STEP ? (size_t)room[0] : descend(left - ONE_STEP) + (size_t)room[ONE_STEP - 1];
}

typedef struct dive {
    counter here;
    size_t n;
    pthread_t caller; /* whose stack is not ours to size */
} dive;

static inline int32_t dive_deep(void *ctx, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    dive *d = ctx;
    counter_raise(&d->here);
    CHECK(counter_wait(&d->here, d->n));
    if (!pthread_equal(d->caller, pthread_self()))
        CHECK_INT(DEEP / ONE_STEP + 1, descend(DEEP));
    return 0;
}

static inline void check_deep_recursion(int32_t workers) {
    dive d = {COUNTER, (size_t)workers, pthread_self()};
    pb_map_options options = {.struct_size = sizeof options, .n_jobs = workers};
    CHECK_OK(pb_parallel_map(dive_deep, &d, d.n, NULL, 0, NULL, 0, &options));
}

#endif
