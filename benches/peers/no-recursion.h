/* For peers without recursion: they take no part in its row, and need the two functions only to be linked. */
#include "peer.h"

void peer_root(bench_branch branch, void *ctx) { branch(ctx); }

void peer_join(bench_branch branch, void *a, void *b) {
    branch(a);
    branch(b);
}
