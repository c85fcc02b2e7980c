#include "ridge.h"

#include "lapack.h"

#include <math.h>
#include <parallel_backend.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const double ridge_gammas[GAMMAS] = {0.01, 0.03, 0.1, 0.3};
const double ridge_alphas[ALPHAS] = {1e-3, 1e-2, 1e-1, 1};

static const int features = FEATURES, classes = CLASSES;
static const double zero = 0, one = 1;

/* The matrices of one task, by columns, in one block of memory. */
typedef struct workspace {
    int n, m;         /* rows to learn from, rows to predict */
    double *x, *z;    /* features x n and features x m: those rows */
    double *x2;       /* n: the squared length of each row of x */
    double *kernel;   /* n x n: of x and x, lower triangle */
    double *kernel_z; /* n x m: of x and z */
    double *c;        /* n x classes: the targets, then the coefficients */
    double *scores;   /* classes x m */
} workspace;

void ridge_grid(ridge_task tasks[TASKS]) {
    for (int i = 0; i < TASKS; i++) {
        int pair = i / FOLDS;
        tasks[i].gamma = ridge_gammas[pair / ALPHAS];
        tasks[i].alpha = ridge_alphas[pair % ALPHAS];
        tasks[i].fold = i % FOLDS;
    }
}

/* Returns the block to free, or NULL. */
static double *workspace_alloc(workspace *w, size_t rows, size_t fold) {
    size_t m = (rows + FOLDS - 1 - fold) / FOLDS, n = rows - m;
    double *block = malloc((FEATURES * rows + n + n * n + n * m + CLASSES * rows) * sizeof *block);
    if (!block)
        return NULL;
    w->n = (int)n;
    w->m = (int)m;
    w->x = block;
    w->z = w->x + FEATURES * n;
    w->x2 = w->z + FEATURES * m;
    w->kernel = w->x2 + n;
    w->kernel_z = w->kernel + n * n;
    w->c = w->kernel_z + n * m;
    w->scores = w->c + CLASSES * n;
    return block;
}

static void split_rows(const digits *data, size_t fold, workspace *w) {
    size_t n = 0, m = 0;
    for (size_t row = 0; row < data->rows; row++) {
        if (row % FOLDS == fold) {
            memcpy(w->z + FEATURES * m++, data->x[row], sizeof data->x[row]);
            continue;
        }
        memcpy(w->x + FEATURES * n, data->x[row], sizeof data->x[row]);
        for (int digit = 0; digit < CLASSES; digit++)
            w->c[(size_t)digit * (size_t)w->n + n] = data->label[row] == digit ? 1 : -1;
        n++;
    }
}

/* The kernel from products: |x-z|^2 = x.x + z.z - 2 x.z. They are exact here, as features are sixteenths. */
static double rbf(double gamma, double x2, double z2, double xz) { return exp(-gamma * (x2 + z2 - 2 * xz)); }

/* kernel = K + alpha I */
static void fill_kernel(const ridge_task *task, workspace *w) {
    size_t n = (size_t)w->n;
    dsyrk_("L", "T", &w->n, &features, &one, w->x, &features, &zero, w->kernel, &w->n, 1, 1);
    for (size_t i = 0; i < n; i++)
        w->x2[i] = w->kernel[i * n + i];
    for (size_t j = 0; j < n; j++) {
        double *column = w->kernel + j * n;
        column[j] = 1 + task->alpha;
        for (size_t i = j + 1; i < n; i++)
            column[i] = rbf(task->gamma, w->x2[i], w->x2[j], column[i]);
    }
}

static void fill_kernel_z(const ridge_task *task, workspace *w) {
    size_t n = (size_t)w->n, m = (size_t)w->m;
    dgemm_("T", "N", &w->n, &w->m, &features, &one, w->x, &features, w->z, &features, &zero, w->kernel_z,
           &w->n, 1, 1);
    for (size_t j = 0; j < m; j++) {
        const double *z = w->z + FEATURES * j;
        double *column = w->kernel_z + n * j, z2 = 0;
        for (size_t i = 0; i < FEATURES; i++)
            z2 += z[i] * z[i];
        for (size_t i = 0; i < n; i++)
            column[i] = rbf(task->gamma, w->x2[i], z2, column[i]);
    }
}

/* Row j of the fold is row fold + FOLDS * j of the data. */
static int32_t count_right(const digits *data, size_t fold, const workspace *w) {
    int32_t right = 0;
    for (size_t j = 0; j < (size_t)w->m; j++) {
        const double *score = w->scores + CLASSES * j;
        int best = 0;
        for (int digit = 1; digit < CLASSES; digit++)
            if (score[digit] > score[best])
                best = digit;
        right += best == data->label[fold + FOLDS * j];
    }
    return right;
}

static int32_t fail(int32_t code, const char *text) {
    pb_task_fail(text); /* were the text refused, the code would still say that the task failed */
    return code;
}

int32_t ridge_run(void *ctx, size_t index, const void *input, void *output) {
    const digits *data = ctx;
    const ridge_task *task = input;
    size_t fold = (size_t)task->fold;
    workspace w;
    (void)index;

    double *block = workspace_alloc(&w, data->rows, fold);
    if (!block)
        return fail(1, "out of memory for the matrices of a task");
    split_rows(data, fold, &w);
    fill_kernel(task, &w);
    int info;
    dposv_("L", &w.n, &classes, w.kernel, &w.n, w.c, &w.n, &info, 1);
    if (info) {
        char text[128];
        snprintf(text, sizeof text, "dposv: info %d for gamma %g, alpha %g, fold %zu", info, task->gamma,
                 task->alpha, fold);
        free(block);
        return fail(2, text);
    }
    fill_kernel_z(task, &w);
    dgemm_("T", "N", &classes, &w.m, &w.n, &one, w.c, &w.n, w.kernel_z, &w.n, &zero, w.scores, &classes, 1,
           1);
    *(int32_t *)output = count_right(data, fold, &w);
    free(block);
    return 0;
}

int32_t ridge_nothing(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    return 0;
}
