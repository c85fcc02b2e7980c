/* The bodies that are timed. They are compiled once, in bodies.c, without link-time optimisation, and every
 * peer calls the same machine code through a pointer. */
#ifndef BENCH_BODIES_H
#define BENCH_BODIES_H

#include "peer.h"

/* ---- bodies that only take time; they are tallied ---- */
extern const bench_body empty_body;     /* ctx: unused */
extern const bench_body spin_same_body; /* ctx: spin_work; each item takes `turns` turns */
extern const bench_body spin_each_body; /* ctx: spin_work; item i takes `turns_of[i]` turns */
extern const bench_body nest_body;      /* ctx: nest_work; each item is a loop of its own */

typedef struct spin_work {
    uint64_t turns;
    const uint32_t *turns_of;
} spin_work;

typedef struct nest_work {
    size_t n;
    const bench_body *body;
    void *ctx;
} nest_work;

/* A counted loop that no compiler shortens; the driver finds out how many turns make a microsecond. */
void spin(uint64_t turns);

/* What tallied bodies did so far: how many ran, and the sum of tally_weight of their indices. Call it while
 * none runs. */
typedef struct tally {
    uint64_t count, weight;
} tally;
tally tally_read(void);
uint64_t tally_weight(size_t i);

/* ---- bodies that compute; their outputs are checked ---- */
extern const bench_body saxpy_body;       /* ctx: saxpy_work */
extern const bench_body mandelbrot_body;  /* ctx: mandelbrot_work; one item is one row */
extern const bench_body spmv_body;        /* ctx: spmv_work; one item is one row */
extern const bench_body dgemm_body;       /* ctx: dgemm_work; one item is one product */
extern const bench_body monte_carlo_body; /* ctx: monte_carlo_work; one item is one path */

typedef struct saxpy_work {
    float a;
    const float *x, *y;
    float *z; /* z = a x + y */
} saxpy_work;

typedef struct mandelbrot_work {
    int width, height, limit;
    uint16_t *escape; /* height x width: after how many turns */
} mandelbrot_work;

typedef struct spmv_work { /* y = A x, A in compressed sparse rows */
    const size_t *row_starts;
    const uint32_t *columns;
    const double *values, *x;
    double *y;
} spmv_work;

/* cblas_dgemm of the OpenBLAS that the harness loaded. */
typedef void (*dgemm_function)(int order, int transpose_a, int transpose_b, int m, int n, int k, double alpha,
                               const double *a, int lda, const double *b, int ldb, double beta, double *c,
                               int ldc);

typedef struct dgemm_work { /* c[i] = a[i] b[i], square */
    dgemm_function dgemm;
    int size;
    const double *a, *b;
    double *c;
} dgemm_work;

typedef struct sort_work { /* sorts a copy of `from`, by merges, into `to` */
    size_t n;
    const uint32_t *from;
    uint32_t *to, *scratch;
} sort_work;

/* The recursion itself: it is no loop, peer_root and peer_join run it. */
void merge_sort(void *sort_work);

typedef struct monte_carlo_work { /* a random walk of log prices that ends where it crosses the barrier */
    int steps;
    double drift, volatility, barrier;
    double *payoffs;
} monte_carlo_work;

#endif
