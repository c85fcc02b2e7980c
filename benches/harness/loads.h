/* The loops that compute something, with inputs that are the same in every process. */
#ifndef BENCH_LOADS_H
#define BENCH_LOADS_H

#include "measure.h"

loop make_saxpy(const settings *settings);
loop make_mandelbrot(const settings *settings);
loop make_spmv(const settings *settings);
loop make_dgemm(const settings *settings);
loop make_monte_carlo(const settings *settings);
loop make_merge_sort(const settings *settings);

/* malloc that ends the program where memory is out; nothing is freed, a process measures one row. */
void *memory(size_t bytes);

/* A number in [0, 1) for each i: the same everywhere. */
double uniform(size_t i);

#endif
