/* Maps on worker processes: bench-processes BACKEND WORKERS prints a row "what<tab>ms" for each measurement.
 * The same work as in pool.py and mclapply.R; benches/processes/run puts them side by side. */
#include <parallel_backend.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ARRAYS = 8, ARRAY = 8 << 20, ALL = ARRAYS * ARRAY, TRIVIAL = 100000, MOST = 101 };

static int32_t trivial(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)input;
    *(double *)output = (double)index;
    return 0;
}

static int32_t echo(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index;
    memcpy(output, input, ARRAY);
    return 0;
}

static int32_t echo_bytes(void *ctx, size_t index, const void *input, size_t size, pb_output *output) {
    (void)ctx, (void)index;
    return pb_output_write(output, input, size) == PB_OK ? 0 : 1;
}

static void check(int holds) {
    if (!holds) {
        fprintf(stderr, "bench-processes: wrong result, or %s\n", pb_last_error());
        exit(1);
    }
}

/* ---- what is measured: each returns nothing, and has its arrays from below ---- */

static double outputs[TRIVIAL];
static char *in, *out, *shared_in, *shared_out;

static void two_trivial(void) {
    check(pb_parallel_map(trivial, NULL, 2, NULL, 0, outputs, sizeof *outputs, NULL) == PB_OK);
}

static void many_trivial(void) {
    check(pb_parallel_map(trivial, NULL, TRIVIAL, NULL, 0, outputs, sizeof *outputs, NULL) == PB_OK);
}

static void start(void) {
    check(pb_shutdown() == PB_OK);
    two_trivial();
}

static void copy(void) { memcpy(out, in, ALL); }

static void echo_arrays(void) {
    check(pb_parallel_map(echo, NULL, ARRAYS, in, ARRAY, out, ARRAY, NULL) == PB_OK);
}

static void echo_blocks(void) {
    check(pb_parallel_map(echo, NULL, ARRAYS, shared_in, ARRAY, shared_out, ARRAY, NULL) == PB_OK);
}

static void echo_as_bytes(void) {
    pb_bytes inputs[ARRAYS];
    pb_results *results = NULL;
    for (size_t i = 0; i < ARRAYS; i++)
        inputs[i] = (pb_bytes){in + i * ARRAY, ARRAY};
    check(pb_map_bytes(echo_bytes, NULL, ARRAYS, inputs, NULL, &results) == PB_OK);
    pb_results_free(results);
}

static int ascending(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

/* The median of some rounds, after one that does not count: so areas are warm, and reusable workers there. */
static void row(const char *what, int rounds, void (*work)(void)) {
    double times[MOST];
    work();
    for (int i = 0; i < rounds; i++) {
        const double begin = now();
        work();
        times[i] = now() - begin;
    }
    qsort(times, (size_t)rounds, sizeof *times, ascending);
    printf("%s\t%.3f\n", what, times[rounds / 2]);
}

int main(int argc, char **argv) {
    pb_scope scope;
    pb_worker_main(argc, argv);
    check(argc == 3 && pb_push_backend(argv[1], atoi(argv[2]), 0, NULL, &scope) == PB_OK);
    row("start of the workers, and 2 trivial items", 21, start);
    row("2 trivial items", MOST, two_trivial);
    row("100,000 trivial items", 31, many_trivial);
    in = malloc(ALL), out = malloc(ALL);
    check(in != NULL && out != NULL);
    memset(in, 7, ALL);
    row("memcpy of 64 MiB", 11, copy);
    memset(out, 0, ALL);
    row("8 arrays of 8 MiB, echoed", 11, echo_arrays);
    check(memcmp(in, out, ALL) == 0);
    row("the same as bytes", 11, echo_as_bytes);
    check(pb_alloc_shared(ALL, (void **)&shared_in) == PB_OK);
    check(pb_alloc_shared(ALL, (void **)&shared_out) == PB_OK);
    memcpy(shared_in, in, ALL);
    free(in);
    free(out);
    row("8 arrays of 8 MiB, echoed, in shared blocks", 11, echo_blocks);
    check(memcmp(shared_in, shared_out, ALL) == 0);
    check(pb_pop_backend(scope) == PB_OK && pb_shutdown() == PB_OK);
    return 0;
}
