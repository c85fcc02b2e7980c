/* New std::threads for every loop, each with an equal share of it: what programs without a pool do. */
#include "no-recursion.h"
#include "peer.h"

#include <algorithm>
#include <thread>
#include <vector>

static std::size_t thread_count;

const char *peer_version(void) { return "std::thread, libstdc++ of GCC " __VERSION__; }

void peer_start(int threads) { thread_count = static_cast<std::size_t>(threads); }

void peer_for(size_t n, const bench_body *body, void *ctx) {
    std::size_t parts = std::min(n, thread_count);
    auto run = [=](std::size_t part) {
        for (std::size_t i = n * part / parts; i < n * (part + 1) / parts; i++)
            body->call(ctx, i);
    };
    std::vector<std::thread> threads;
    for (std::size_t part = 1; part < parts; part++)
        threads.emplace_back(run, part);
    run(0);
    for (std::thread &thread : threads)
        thread.join();
}

void peer_nested_for(size_t n, const bench_body *body, void *ctx) { peer_for(n, body, ctx); }

int peer_takes_callers(void) { return 1; }
