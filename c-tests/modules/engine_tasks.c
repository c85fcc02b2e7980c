/* Tasks for the tests of engines, in a shared library as their workers need them. */
#include <parallel_backend.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

int32_t add_one(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)input;
    *(int64_t *)output = (int64_t)index + 1;
    return 0;
}

/* The sum of ctx, `input` bytes of it. */
int32_t sum_ctx(void *ctx, size_t index, const void *input, void *output) {
    int64_t sum = (int64_t)index;
    for (int64_t i = 0; i < *(const int64_t *)input; ++i)
        sum += ((const unsigned char *)ctx)[i];
    *(int64_t *)output = sum;
    return 0;
}

/* Takes the seconds that ctx says, whatever anybody asks. */
int32_t take_time(void *ctx, size_t index, const void *input, void *output) {
    const double end = seconds() + *(const double *)ctx;
    while (seconds() < end)
        usleep(1000);
    return add_one(ctx, index, input, output);
}

/* Goes on until it is asked to stop, 60 s at most. Leaves a file behind whose name is ctx when it begins. */
int32_t until_cancelled(void *ctx, size_t index, const void *input, void *output) {
    (void)input, (void)output;
    FILE *begun = fopen((const char *)ctx, "a");
    if (begun != NULL) {
        fprintf(begun, "%zu\n", index);
        fclose(begun);
    }
    const double end = seconds() + 60;
    while (!pb_cancelled() && seconds() < end)
        usleep(1000);
    return 0;
}

/* The process that runs it. */
int32_t whose(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input;
    *(int64_t *)output = getpid();
    return 0;
}

/* A result of as many bytes as the input's number says. */
int32_t grow(void *ctx, size_t index, const void *input, size_t size, pb_output *output) {
    (void)ctx, (void)index;
    if (size != sizeof(uint64_t))
        return 1;
    uint64_t wanted;
    memcpy(&wanted, input, sizeof wanted);
    char *bytes = malloc(wanted + 1);
    if (bytes == NULL)
        return 2;
    memset(bytes, (int)(wanted % 251), wanted);
    const pb_status status = pb_output_write(output, bytes, wanted);
    free(bytes);
    return status;
}
