/* What the timeline costs: CPU time of maps whose chunks are single items, with a timeline and without, in
 * turns. timeline_cost MICROSECONDS_AN_ITEM ITEMS ROUNDS WORKERS docs/tracing.md has the figures. */
#include <parallel_backend.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static long spins;

static double cpu_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static int32_t spin(void *ctx, size_t i, const void *input, void *output) {
    (void)ctx, (void)i, (void)input, (void)output;
    for (volatile long k = 0; k < spins;)
        k = k + 1;
    return 0;
}

static double map(size_t items, int32_t workers) {
    pb_map_options options = {.struct_size = sizeof options};
    options.n_jobs = workers;
    options.batch_size = 1;
    const double begin = cpu_seconds();
    if (pb_parallel_map(spin, NULL, items, NULL, 0, NULL, 0, &options) != PB_OK)
        exit(1);
    return cpu_seconds() - begin;
}

static void calibrate(double microseconds) {
    enum { CALLS = 200 };
    spins = microseconds > 0 ? 1000 : 0;
    for (int i = 0; i < 5 && spins > 0; i++) {
        const double begin = cpu_seconds();
        for (int k = 0; k < CALLS; k++)
            spin(NULL, 0, NULL, NULL);
        spins = (long)((double)spins * microseconds * 1e-6 * CALLS / (cpu_seconds() - begin));
    }
}

static int ascending(const void *one, const void *other) {
    const double a = *(const double *)one, b = *(const double *)other;
    return (a > b) - (a < b);
}

static double at(double *values, int count, double part) {
    qsort(values, (size_t)count, sizeof *values, ascending);
    return values[(int)(part * (count - 1))];
}

int main(int argc, char **argv) {
    if (argc != 5)
        return fputs("timeline_cost MICROSECONDS_AN_ITEM ITEMS ROUNDS WORKERS\n", stderr), 2;
    const size_t items = (size_t)atol(argv[2]);
    const int rounds = atoi(argv[3]);
    const int32_t workers = (int32_t)atoi(argv[4]);
    double *times[2], *ratios = calloc((size_t)rounds, sizeof *ratios);
    times[0] = calloc((size_t)rounds, sizeof **times);
    times[1] = calloc((size_t)rounds, sizeof **times);
    calibrate(atof(argv[1]));
    for (int round = 0; round < rounds; round++) {
        for (int half = 0; half < 2; half++) {
            const int on = (half ^ round) & 1;
            if (on && pb_trace_start("/dev/null") != PB_OK)
                return fprintf(stderr, "%s\n", pb_last_error()), 1;
            map(items, workers); /* all are warm, and the threads have joined the timeline */
            times[on][round] = map(items, workers);
            if (on && pb_trace_stop() != PB_OK)
                return fprintf(stderr, "%s\n", pb_last_error()), 1;
        }
        ratios[round] = times[1][round] / times[0][round];
    }
    const double off = at(times[0], rounds, 0.5), on = at(times[1], rounds, 0.5);
    printf("off %.1f us, on %.1f us: %.0f ns a chunk; least %.0f ns; ratio %.4f (quartiles %.4f to %.4f)\n",
           off * 1e6, on * 1e6, (on - off) * 1e9 / (double)items,
           (at(times[1], rounds, 0) - at(times[0], rounds, 0)) * 1e9 / (double)items, at(ratios, rounds, 0.5),
           at(ratios, rounds, 0.25), at(ratios, rounds, 0.75));
    return 0;
}
