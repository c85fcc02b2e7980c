/* tasks.h: the tasks, as Julia finds them by name. */
#ifndef TASKS_H
#define TASKS_H

#include <parallel_backend.h>

/* Julia's struct GramContext. Integers of BLAS have 64 bits in Julia; its texts have hidden lengths at the
 * end. */
typedef struct gram_context {
    void (*dgemm)(const char *transa, const char *transb, const int64_t *m, const int64_t *n,
                  const int64_t *k, const double *alpha, const double *a, const int64_t *lda, const double *b,
                  const int64_t *ldb, const double *beta, double *c, const int64_t *ldc, size_t transa_length,
                  size_t transb_length);
    int (*get_num_threads)(void);
    int64_t n;
    int32_t *blas_threads; /* an entry for each item */
} gram_context;

/* The input is an n by n matrix A, the output A'A. Notes how many threads BLAS has in this task. */
int32_t gram(void *ctx, size_t index, const void *input, void *output);

/* By Newton's method; a number that is not positive is an error. */
int32_t square_root(void *ctx, size_t index, const void *input, void *output);

/* Ends well when the int32_t at ctx is not 0 any more; with an error when it is cancelled, or after 20 s. */
int32_t until_flag(void *ctx, size_t index, const void *input, void *output);

#endif
