/* parallel_backend's threading backend; with BENCH_OURS=phase in a phase, whose threads stay awake between
 * calls. */
#include "peer.h"
#include "where.h"

#include <parallel_backend.h>

#include <string.h>

const char *peer_version(void) {
    char name[64];
    snprintf(name, sizeof name, "parallel_backend %s", pb_version());
    return name_and_file(name, (void *)pb_version);
}

static void check(pb_status status) {
    if (status == PB_OK)
        return;
    fprintf(stderr, "%s: %s\n", pb_status_name(status), pb_last_error());
    exit(1);
}

void peer_start(int threads) {
    const char *how = getenv("BENCH_OURS");
    pb_scope phase; /* until the process ends */
    check(pb_set_default_backend("threading", threads, 0, NULL));
    if (how != NULL && strcmp(how, "phase") == 0)
        check(pb_phase_begin(0, &phase));
}

void peer_for(size_t n, const bench_body *body, void *ctx) {
    check(pb_parallel_map(body->task, ctx, n, NULL, 0, NULL, 0, NULL));
}

void peer_nested_for(size_t n, const bench_body *body, void *ctx) { peer_for(n, body, ctx); }

int peer_takes_callers(void) { return 1; }

/* The outermost peer_join is the root. */
void peer_root(bench_branch branch, void *ctx) { branch(ctx); }

void peer_join(bench_branch branch, void *a, void *b) { check(pb_join(branch, a, branch, b)); }
