/* meet.h: a map that needs two threads. */
#ifndef MEET_H
#define MEET_H

#include "scopes.h"

/* Its items wait for each other here: a test makes it for 2. */
static pthread_barrier_t both;

static inline int32_t meet(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    pthread_barrier_wait(&both);
    return 0;
}

/* Ends only when two threads have been in it. */
static inline void map_with_two_threads(void) { CHECK_OK(map_on(2, meet, NULL, 2)); }

#endif
