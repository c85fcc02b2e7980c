/* What a peer program gives the harness: one parallel loop, by a runtime of its own, over bodies that all
 * peers share. */
#ifndef BENCH_PEER_H
#define BENCH_PEER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* One item of a loop. Runtimes differ in the function they take, so each body exists in both shapes, compiled
 * from the same lines: no peer pays for a wrapper. */
typedef struct bench_body {
    void (*call)(void *ctx, size_t i);
    int32_t (*task)(void *ctx, size_t i, const void *input, void *output); /* 0: success */
} bench_body;

/* What runs the loops, with its version, and where it was found in this process. */
const char *peer_version(void);

/* Makes the pool, where the runtime wants that said; called once, before any loop. `threads` counts the
 * caller. */
void peer_start(int threads);

/* Runs body on 0..n-1, each once, and returns when all are over. */
void peer_for(size_t n, const bench_body *body, void *ctx);

/* The same, called from inside a body. Runtimes that cannot do that run a plain loop here, as their users
 * have to. */
void peer_nested_for(size_t n, const bench_body *body, void *ctx);

/* A branch of a recursion. The same shape for all: it returns once for each call of peer_join, which is where
 * the cost is. */
typedef int32_t (*bench_branch)(void *ctx);

/* Runs branch(ctx), in which peer_join may be called, and returns when it is over. */
void peer_root(bench_branch branch, void *ctx);

/* Runs branch(a) and branch(b), perhaps at the same time, and returns when both are over; called at any depth
 * below peer_root. Peers without recursion have neither of the two: no-recursion.h has plain ones. */
void peer_join(bench_branch branch, void *a, void *b);

/* Whether several threads may call peer_for at once. 0: the harness lets one in at a time, as a user would
 * have to. */
int peer_takes_callers(void);

#ifdef __cplusplus
}
#endif
#endif
