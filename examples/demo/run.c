#define _POSIX_C_SOURCE 200809L /* clock_gettime, isatty */

#include "run.h"

#include <parallel_backend.h>
#include <stdio.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define BAR_WIDTH 30

int report_error(const char *what) {
    fprintf(stderr, "%s: %s\n", what, pb_last_error());
    return -1;
}

static double wall_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static double seconds(struct timeval time) { return (double)time.tv_sec + 1e-6 * (double)time.tv_usec; }

static double cpu_now(void) {
    struct rusage self, children;
    getrusage(RUSAGE_SELF, &self);
    getrusage(RUSAGE_CHILDREN, &children);
    return seconds(self.ru_utime) + seconds(self.ru_stime) + seconds(children.ru_utime) +
           seconds(children.ru_stime);
}

/* A pb_progress_fn. user: the run. */
static int32_t draw_bar(void *user, size_t done, size_t failed, size_t total, double elapsed_seconds) {
    char bar[BAR_WIDTH + 1];
    for (size_t i = 0; i < BAR_WIDTH; i++)
        bar[i] = (i + 1) * total <= done * BAR_WIDTH ? '#' : '.';
    bar[BAR_WIDTH] = '\0';
    (void)failed;
    fprintf(stderr, "\r%-28s %s %zu/%zu  %.1f s ", ((grid_run *)user)->label, bar, done, total,
            elapsed_seconds);
    fflush(stderr);
    return 0;
}

static void erase_bar(void) { fputs("\r\033[K", stderr); }

/* Some backends cannot run here, or not this task: the table says why, and that is no failure of the demo. */
static int skip_or_fail(grid_run *run, pb_status status) {
    if (status != PB_ERR_BACKEND_UNAVAILABLE && status != PB_ERR_TASK_NOT_PORTABLE)
        return report_error(run->label);
    snprintf(run->skipped, sizeof run->skipped, "%s", pb_last_error());
    return 0;
}

static int run_map(grid_run *run, const digits *data, const ridge_task tasks[TASKS]) {
    pb_map_options options = {.struct_size = sizeof options, .ctx_size = sizeof *data};
    int on_terminal = isatty(STDERR_FILENO);
    if (on_terminal) {
        options.progress = draw_bar;
        options.progress_user = run;
    }
    run->workers = pb_effective_n_jobs(0);
    pb_status status = pb_parallel_map(ridge_run, (void *)data, TASKS, tasks, sizeof *tasks, run->right,
                                       sizeof *run->right, &options);
    if (on_terminal)
        erase_bar();
    return status == PB_OK ? 0 : skip_or_fail(run, status);
}

/* Workers of a cluster are there when a program comes: the first map waits until they are, and has them load
 * the task. */
static int meet_cluster(grid_run *run) {
    pb_status status = pb_parallel_map(ridge_nothing, NULL, 2, NULL, 0, NULL, 0, NULL);
    return status == PB_OK ? 0 : skip_or_fail(run, status);
}

static int run_inside(grid_run *run, const digits *data, const ridge_task tasks[TASKS]) {
    int failed = run->is_cluster ? meet_cluster(run) : 0;
    if (failed || run->skipped[0])
        return failed;
    double wall = wall_now(), cpu = cpu_now();
    failed = run_map(run, data, tasks);
    run->wall_seconds = wall_now() - wall;
    /* The time of worker processes that stay is known when they have ended. */
    if (pb_shutdown() != PB_OK)
        failed = report_error("pb_shutdown");
    run->cpu_seconds = cpu_now() - cpu;
    return failed;
}

int run_grid(grid_run *run, const digits *data, const ridge_task tasks[TASKS]) {
    pb_scope scope;
    pb_status status =
        pb_push_backend(run->backend, run->n_jobs, run->inner_max_num_threads, run->params, &scope);
    if (status != PB_OK)
        return skip_or_fail(run, status);
    int failed = run_inside(run, data, tasks);
    if (pb_pop_backend(scope) != PB_OK)
        return report_error(run->label);
    return failed;
}
