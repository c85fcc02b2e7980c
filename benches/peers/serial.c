/* A plain loop: what every peer has to beat. */
#include "peer.h"

const char *peer_version(void) { return "a loop"; }

void peer_start(int threads) { (void)threads; }

void peer_for(size_t n, const bench_body *body, void *ctx) {
    for (size_t i = 0; i < n; i++)
        body->call(ctx, i);
}

void peer_nested_for(size_t n, const bench_body *body, void *ctx) { peer_for(n, body, ctx); }

int peer_takes_callers(void) { return 1; }

void peer_root(bench_branch branch, void *ctx) { branch(ctx); }

void peer_join(bench_branch branch, void *a, void *b) {
    branch(a);
    branch(b);
}
