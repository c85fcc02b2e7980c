/* How a row is measured: the loop that it repeats, and the ways to repeat it. */
#ifndef BENCH_MEASURE_H
#define BENCH_MEASURE_H

#include "bodies.h"

typedef struct settings {
    int threads;
    int copies;          /* how many times more processes than the row says; see in_processes */
    double seconds;      /* to measure for, about */
    double turns_per_us; /* of spin */
} settings;

typedef struct loop {
    size_t n;
    const bench_body *body;
    void *ctx;
    tally each;                    /* what one call adds to the tally */
    double (*checksum)(void *ctx); /* of the outputs; NULL where there are none */
    void (*run)(void *ctx);        /* instead of the loop: a recursion; back_to_back only */
} loop;

typedef struct result {
    double value_ns; /* the row's figure: ns a call, or ns of CPU time */
    double cpu_ns;   /* CPU time of the process for each call that was timed; 0 where that means nothing */
    uint64_t calls;  /* made in this process, the warm-up's included */
} result;

typedef result (*measurement)(const loop *loop, const settings *settings, int parameter);

result back_to_back(const loop *loop, const settings *settings, int unused);
/* The caller works alone for `gap_us` before each call, whose time alone counts. */
result with_gaps(const loop *loop, const settings *settings, int gap_us);
/* CPU time of the process in the 500 ms after a series of calls, while the caller sleeps. */
result cpu_after(const loop *loop, const settings *settings, int unused);
/* From a process without pool to the end of its first call. */
result first_call(const loop *loop, const settings *settings, int unused);
/* Several threads call at once; the time for each call that any of them finishes. */
result with_callers(const loop *loop, const settings *settings, int callers);
/* Several processes, each with a pool of `threads`, run at once; the time for each call that any of them
 * finishes. The serial peer gets as many processes as the others have threads, by settings->copies. */
result in_processes(const loop *loop, const settings *settings, int processes);

/* Turns of spin in a microsecond, on a CPU that nothing else uses meanwhile. */
double calibrate(void);

/* Ends the program with a message unless `calls` calls of the loop are exactly what the tally has. */
void check_tally(const loop *loop, uint64_t calls);

#endif
