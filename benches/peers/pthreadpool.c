/* Maratyszcza's pthreadpool. A loop inside a loop of the same pool would deadlock, so that one is plain. */
#include "no-recursion.h"
#include "peer.h"
#include "where.h"

#include <pthreadpool.h>

static pthreadpool_t pool;

const char *peer_version(void) { return name_and_file("pthreadpool", (void *)pthreadpool_create); }

void peer_start(int threads) {
    pool = pthreadpool_create((size_t)threads);
    if (!pool)
        exit(1);
}

void peer_for(size_t n, const bench_body *body, void *ctx) {
    pthreadpool_parallelize_1d(pool, body->call, ctx, n, 0);
}

void peer_nested_for(size_t n, const bench_body *body, void *ctx) {
    for (size_t i = 0; i < n; i++)
        body->call(ctx, i);
}

int peer_takes_callers(void) { return 1; } /* it has a lock of its own for them */
