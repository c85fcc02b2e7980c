/* Kernel ridge classification with the kernel exp(-gamma |x-z|^2), and the grid of tasks that rates its
 * parameters. */
#ifndef DEMO_RIDGE_H
#define DEMO_RIDGE_H

#include "data.h"

#define FOLDS  5
#define GAMMAS 4
#define ALPHAS 4
#define PAIRS  (GAMMAS * ALPHAS)
#define TASKS  (PAIRS * FOLDS)

extern const double ridge_gammas[GAMMAS];
extern const double ridge_alphas[ALPHAS];

/* One task: learn from all rows but those of the fold, and predict those. */
typedef struct ridge_task {
    double gamma;
    double alpha;
    int32_t fold; /* of the rows i with i mod FOLDS == fold */
} ridge_task;

/* All tasks: by gamma, then alpha, then fold. */
void ridge_grid(ridge_task tasks[TASKS]);

/* A pb_task_fn. ctx: digits; input: ridge_task; output: int32_t, how many rows of the fold it got right. */
int32_t ridge_run(void *ctx, size_t index, const void *input, void *output);

/* A pb_task_fn that does nothing. */
int32_t ridge_nothing(void *ctx, size_t index, const void *input, void *output);

#endif
