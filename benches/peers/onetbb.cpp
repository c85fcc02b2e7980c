/* oneTBB: parallel_for with its default, the auto_partitioner. */
#include "peer.h"
#include "where.h"

#include <memory>
#include <oneapi/tbb/blocked_range.h>
#include <oneapi/tbb/global_control.h>
#include <oneapi/tbb/parallel_for.h>
#include <oneapi/tbb/parallel_invoke.h>
#include <oneapi/tbb/version.h>

static std::unique_ptr<tbb::global_control> limit;

const char *peer_version(void) { return name_and_file(TBB_runtime_version(), (void *)TBB_runtime_version); }

void peer_start(int threads) {
    limit = std::make_unique<tbb::global_control>(tbb::global_control::max_allowed_parallelism,
                                                  static_cast<std::size_t>(threads));
}

void peer_for(size_t n, const bench_body *body, void *ctx) {
    auto call = body->call;
    tbb::parallel_for(tbb::blocked_range<std::size_t>(0, n), [=](const auto &range) {
        for (std::size_t i = range.begin(); i != range.end(); i++)
            call(ctx, i);
    });
}

void peer_nested_for(size_t n, const bench_body *body, void *ctx) { peer_for(n, body, ctx); }

int peer_takes_callers(void) { return 1; }

void peer_root(bench_branch branch, void *ctx) { branch(ctx); }

void peer_join(bench_branch branch, void *a, void *b) {
    tbb::parallel_invoke([=] { branch(a); }, [=] { branch(b); });
}
