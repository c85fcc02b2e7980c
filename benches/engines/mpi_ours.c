/* Rank 0 of "mpirun -n 1 mpi_ours ITEMS STEPS : -n K pb-mpi-worker": prints the seconds that a map of ITEMS
 * chunks of one item takes. "mpi_ours calibrate" prints the steps that take 100 microseconds. */
#include <parallel_backend.h>

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

uint64_t bench_work(uint64_t seed, uint64_t steps);
int32_t bench_item(void *ctx, size_t index, const void *input, void *output);

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static int calibrate(void) {
    enum { STEPS = 2000000 };
    double best = 1;
    for (int round = 0; round < 20; ++round) {
        const double start = seconds();
        volatile uint64_t result = bench_work((uint64_t)round, STEPS);
        (void)result;
        const double took = seconds() - start;
        best = took < best ? took : best;
    }
    printf("%.0f\n", STEPS * 100e-6 / best);
    return 0;
}

static void must(pb_status status) {
    if (status != PB_OK) {
        fprintf(stderr, "%s\n", pb_last_error());
        exit(1);
    }
}

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "calibrate") == 0)
        return calibrate();
    if (argc != 3)
        return 2;
    const size_t items = strtoull(argv[1], NULL, 10);
    uint64_t steps = strtoull(argv[2], NULL, 10);
    uint64_t *outputs = calloc(items, sizeof *outputs);
    pb_map_options options = {.struct_size = sizeof options};
    options.ctx_size = sizeof steps;
    options.batch_size = 1;
    pb_scope scope;
    must(pb_push_backend("mpi", 0, 0, NULL, &scope));
    must(pb_parallel_map(bench_item, &steps, items / 100 + 1, NULL, 0, outputs, sizeof *outputs,
                         &options)); /* warm */
    const double start = seconds();
    must(pb_parallel_map(bench_item, &steps, items, NULL, 0, outputs, sizeof *outputs, &options));
    printf("%.6f\n", seconds() - start);
    for (size_t i = 0; i < items; i += items / 10)
        if (outputs[i] != bench_work(i, steps))
            return 3;
    must(pb_pop_backend(scope));
    must(pb_shutdown());
    free(outputs);
    return 0;
}
