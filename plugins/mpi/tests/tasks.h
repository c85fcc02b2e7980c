/* tasks.h: the tasks of the tests: functions of a shared library, as workers find them by themselves. */
#ifndef PB_MPI_TEST_TASKS_H
#define PB_MPI_TEST_TASKS_H

#include <parallel_backend.h>

#define TASK(name)                                                                                           \
    __attribute__((visibility("default"))) int32_t name(void *ctx, size_t index, const void *input,          \
                                                        void *output)

/* output: int64 twice the input. */
TASK(twice);
/* output: the process that ran it, once it has taken some 5 ms. */
TASK(who);
/* ctx: a uint64, its size, and more bytes; output: uint64 a sum over them. */
TASK(sum_ctx);
/* output: struct big, filled with the index. */
struct big {
    unsigned char bytes[4 << 20];
};
TASK(fill);
/* Fails at item 7 with code 42 and a text. */
TASK(fail_at_7);
/* Goes on until it is asked to stop; output: int32 1. */
TASK(until_cancelled);
/* The same after it has made the file that ctx names. */
TASK(tell_and_wait);
/* output: int64[3]: the sum of an inner map, its workers, its level. */
TASK(nested);
/* Kills its own process; item 0 only. */
TASK(die);
/* Uses the backend on a worker, and shuts down there; output: int32 the status of the first. */
TASK(use_mpi_in_task);
/* Output of the sizes that inputs say. */
__attribute__((visibility("default"))) int32_t repeat(void *ctx, size_t index, const void *input, size_t size,
                                                      pb_output *output);

#endif
