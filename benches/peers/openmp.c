/* OpenMP, with the schedule that the build names. The object is the same for GCC's and for LLVM's runtime,
 * which has GCC's entry points too; the link decides, and peer_version says. */
#include "peer.h"
#include "where.h"

#include <omp.h>

#define TEXT(x) #x
#define OMP_FOR(clause) _Pragma(TEXT(omp parallel for num_threads(thread_count) schedule(clause)))

static int thread_count;

const char *peer_version(void) { return name_and_file("OpenMP", (void *)omp_get_num_threads); }

void peer_start(int threads) { thread_count = threads; }

void peer_for(size_t n, const bench_body *body, void *ctx) {
    void (*call)(void *, size_t) = body->call;
    OMP_FOR(SCHEDULE)
    for (size_t i = 0; i < n; i++)
        call(ctx, i);
}

void peer_nested_for(size_t n, const bench_body *body, void *ctx) { peer_for(n, body, ctx); }

int peer_takes_callers(void) { return 1; }

void peer_root(bench_branch branch, void *ctx) {
#pragma omp parallel num_threads(thread_count)
#pragma omp single
    branch(ctx);
}

void peer_join(bench_branch branch, void *a, void *b) {
#pragma omp task
    branch(a);
    branch(b);
#pragma omp taskwait
}
