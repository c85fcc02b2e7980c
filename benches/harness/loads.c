#include "loads.h"

#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

void *memory(size_t bytes) {
    void *block = malloc(bytes);
    if (block)
        return block;
    fprintf(stderr, "no memory for %zu bytes\n", bytes);
    exit(1);
}

double uniform(size_t i) {
    uint64_t x = tally_weight(i);
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return (double)((x ^ (x >> 31)) >> 11) * 0x1p-53;
}

/* Sensitive to outputs in the wrong place, too. */
#define WEIGHTED_SUM(values, n)                                                                              \
    double sum = 0;                                                                                          \
    for (size_t i = 0; i < (n); i++)                                                                         \
        sum += (double)(values)[i] * (double)(i % 101 + 1);                                                  \
    return sum

/* ---- z = a x + y ---- */

enum { SAXPY_ITEMS = 1000 * 1000 };

static double sum_saxpy(void *ctx) { WEIGHTED_SUM(((saxpy_work *)ctx)->z, SAXPY_ITEMS); }

loop make_saxpy(const settings *s) {
    (void)s;
    float *x = memory(SAXPY_ITEMS * sizeof *x), *y = memory(SAXPY_ITEMS * sizeof *y);
    static saxpy_work work;
    work = (saxpy_work){.a = 2.5f, .x = x, .y = y, .z = memory(SAXPY_ITEMS * sizeof *x)};
    for (size_t i = 0; i < SAXPY_ITEMS; i++) {
        x[i] = (float)uniform(i);
        y[i] = (float)uniform(SAXPY_ITEMS + i);
        work.z[i] = 0;
    }
    return (loop){SAXPY_ITEMS, &saxpy_body, &work, {0, 0}, sum_saxpy, NULL};
}

/* ---- mandelbrot ---- */

enum { WIDTH = 480, HEIGHT = 270 };

static double sum_mandelbrot(void *ctx) { WEIGHTED_SUM(((mandelbrot_work *)ctx)->escape, WIDTH * HEIGHT); }

loop make_mandelbrot(const settings *s) {
    (void)s;
    static uint16_t escape[WIDTH * HEIGHT];
    static mandelbrot_work work = {.width = WIDTH, .height = HEIGHT, .limit = 500, .escape = escape};
    return (loop){HEIGHT, &mandelbrot_body, &work, {0, 0}, sum_mandelbrot, NULL};
}

/* ---- sparse matrix times vector; row lengths follow a power law ---- */

enum { MATRIX_ROWS = 50 * 1000, SHORTEST_ROW = 4, LONGEST_ROW = 10 * 1000 };

static double sum_spmv(void *ctx) { WEIGHTED_SUM(((spmv_work *)ctx)->y, MATRIX_ROWS); }

loop make_spmv(const settings *s) {
    (void)s;
    size_t *starts = memory((MATRIX_ROWS + 1) * sizeof *starts);
    starts[0] = 0;
    for (size_t row = 0; row < MATRIX_ROWS; row++) {
        double length = SHORTEST_ROW * pow(1 - uniform(row), -1 / 1.3);
        starts[row + 1] = starts[row] + (size_t)fmin(length, LONGEST_ROW);
    }
    size_t entries = starts[MATRIX_ROWS];
    uint32_t *columns = memory(entries * sizeof *columns);
    double *values = memory(entries * sizeof *values), *x = memory(MATRIX_ROWS * sizeof *x);
    for (size_t k = 0; k < entries; k++) {
        columns[k] = (uint32_t)(uniform(k) * MATRIX_ROWS);
        values[k] = 1.0 / (double)(k % 7 + 1);
    }
    for (size_t i = 0; i < MATRIX_ROWS; i++)
        x[i] = uniform(entries + i);
    static spmv_work work;
    work = (spmv_work){starts, columns, values, x, memory(MATRIX_ROWS * sizeof *x)};
    return (loop){MATRIX_ROWS, &spmv_body, &work, {0, 0}, sum_spmv, NULL};
}

/* ---- a batch of products by OpenBLAS ---- */

enum { PRODUCTS = 64, SIZE = 128, ENTRIES = PRODUCTS * SIZE * SIZE };

static double sum_dgemm(void *ctx) { WEIGHTED_SUM(((dgemm_work *)ctx)->c, ENTRIES); }

/* Loaded here and not linked: its own threads would be in every other row otherwise. */
static dgemm_function load_dgemm(void) {
    void *library = dlopen(BENCH_OPENBLAS, RTLD_NOW | RTLD_GLOBAL);
    dgemm_function dgemm = library ? (dgemm_function)dlsym(library, "cblas_dgemm") : NULL;
    if (dgemm)
        return dgemm;
    fprintf(stderr, "%s\n", dlerror());
    exit(1);
}

loop make_dgemm(const settings *s) {
    (void)s;
    double *a = memory(ENTRIES * sizeof *a), *b = memory(ENTRIES * sizeof *b);
    static dgemm_work work;
    work = (dgemm_work){load_dgemm(), SIZE, a, b, memory(ENTRIES * sizeof *a)};
    for (size_t i = 0; i < ENTRIES; i++) {
        a[i] = uniform(i);
        b[i] = uniform(ENTRIES + i);
    }
    return (loop){PRODUCTS, &dgemm_body, &work, {0, 0}, sum_dgemm, NULL};
}

/* ---- random walks that end at a barrier ---- */

enum { PATHS = 4000, STEPS = 2000 };

static double sum_monte_carlo(void *ctx) { WEIGHTED_SUM(((monte_carlo_work *)ctx)->payoffs, PATHS); }

loop make_monte_carlo(const settings *s) {
    (void)s;
    static double payoffs[PATHS];
    static monte_carlo_work work = {STEPS, 0.0, 0.05, 0.5, payoffs};
    return (loop){PATHS, &monte_carlo_body, &work, {0, 0}, sum_monte_carlo, NULL};
}

/* ---- merge sort ---- */

enum { SORTED = 500 * 1000 };

static double sum_merge_sort(void *ctx) { WEIGHTED_SUM(((sort_work *)ctx)->to, SORTED); }

loop make_merge_sort(const settings *s) {
    (void)s;
    static uint32_t from[SORTED], to[SORTED], scratch[SORTED];
    static sort_work work = {SORTED, from, to, scratch};
    for (size_t i = 0; i < SORTED; i++)
        from[i] = (uint32_t)(uniform(i) * 4e9);
    return (loop){.ctx = &work, .checksum = sum_merge_sort, .run = merge_sort};
}
