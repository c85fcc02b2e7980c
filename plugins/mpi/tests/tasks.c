/* The tasks of tasks.h. */
#include "tasks.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

TASK(twice) {
    (void)ctx, (void)index;
    *(int64_t *)output = 2 * *(const int64_t *)input;
    return 0;
}

TASK(who) {
    (void)ctx, (void)index, (void)input;
    const double end = seconds() + 5e-3;
    while (seconds() < end) {
    }
    *(int32_t *)output = getpid();
    return 0;
}

/* ctx: a uint64 size, then as many bytes. */
TASK(sum_ctx) {
    (void)index, (void)input;
    unsigned char *bytes = ctx;
    uint64_t size, sum = 0;
    memcpy(&size, ctx, sizeof size);
    for (uint64_t i = sizeof size; i < size; i += 997)
        sum += bytes[i];
    *(uint64_t *)output = sum;
    return 0;
}

TASK(fill) {
    (void)ctx, (void)input;
    memset(output, (int)index + 1, sizeof(struct big));
    return 0;
}

TASK(fail_at_7) {
    (void)ctx, (void)input, (void)output;
    if (index != 7)
        return 0;
    pb_task_fail("seven is not to be had");
    return 42;
}

TASK(until_cancelled) {
    (void)ctx, (void)index, (void)input;
    const double end = seconds() + 60;
    while (!pb_cancelled() && seconds() < end)
        usleep(100);
    *(int32_t *)output = pb_cancelled();
    return 0;
}

TASK(tell_and_wait) {
    FILE *file = fopen(ctx, "w");
    if (file == NULL)
        return 1;
    fclose(file);
    return until_cancelled(NULL, index, input, output);
}

static int32_t square(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)input;
    ((int64_t *)output)[0] = (int64_t)(index * index);
    ((int64_t *)output)[1] = pb_nesting_level();
    return 0;
}

TASK(nested) {
    (void)ctx, (void)index, (void)input;
    int64_t squares[100][2], *out = output;
    if (pb_parallel_map(square, NULL, 100, NULL, 0, squares, sizeof *squares, NULL) != PB_OK)
        return 1;
    out[0] = 0;
    for (int i = 0; i < 100; ++i)
        out[0] += squares[i][0];
    out[1] = pb_effective_n_jobs(-1);
    out[2] = squares[0][1];
    return 0;
}

TASK(use_mpi_in_task) {
    (void)ctx, (void)index, (void)input;
    pb_scope scope;
    *(int32_t *)output = pb_push_backend("mpi", 0, 0, NULL, &scope);
    return pb_shutdown();
}

TASK(die) {
    (void)ctx, (void)input, (void)output;
    if (index == 0)
        raise(SIGKILL);
    return until_cancelled(NULL, index, input, output);
}

int32_t repeat(void *ctx, size_t index, const void *input, size_t size, pb_output *output) {
    (void)ctx;
    for (size_t i = 0; i <= index; ++i)
        if (pb_output_write(output, input, size) != PB_OK)
            return 1;
    return 0;
}
