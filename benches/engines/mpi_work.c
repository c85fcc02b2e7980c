/* The item of the measurement, in a shared library that both programs link: so many steps of a generator of
 * numbers. */
#include <parallel_backend.h>

#include <stdint.h>

uint64_t bench_work(uint64_t seed, uint64_t steps) {
    for (; steps > 0; --steps)
        seed = seed * 6364136223846793005u + 1442695040888963407u;
    return seed;
}

/* ctx: the steps. output: uint64_t. */
int32_t bench_item(void *ctx, size_t index, const void *input, void *output) {
    (void)input;
    *(uint64_t *)output = bench_work(index, *(const uint64_t *)ctx);
    return 0;
}
