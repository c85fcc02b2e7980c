/* Pi, as the integral of 4 / (1 + x^2) over 0..1: each task adds up one slice, on all CPUs. */
#include <parallel_backend.h>
#include <stdio.h>

enum { SLICES = 64, STEPS = 1000000 };

static int32_t integrate(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)input;
    double sum = 0, width = 1.0 / SLICES / STEPS;
    for (int i = 0; i < STEPS; i++) {
        double x = ((double)index * STEPS + i + 0.5) * width;
        sum += 4 / (1 + x * x) * width;
    }
    *(double *)output = sum;
    return 0; /* anything else would be this task's error */
}

int main(void) {
    pb_scope scope;
    double slices[SLICES], pi = 0;
    if (pb_push_backend("threading", -1, 0, NULL, &scope) != PB_OK ||
        pb_parallel_map(integrate, NULL, SLICES, NULL, 0, slices, sizeof *slices, NULL) != PB_OK ||
        pb_pop_backend(scope) != PB_OK) {
        fprintf(stderr, "%s\n", pb_last_error());
        return 1;
    }
    for (int i = 0; i < SLICES; i++)
        pi += slices[i];
    printf("pi = %.12f\n", pi);
    return 0;
}
