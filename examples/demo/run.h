/* The whole grid of tasks on one backend, timed. */
#ifndef DEMO_RUN_H
#define DEMO_RUN_H

#include "ridge.h"

/* One row of the table. The first part says what to run, the second what came of it. */
typedef struct grid_run {
    const char *label;
    const char *backend;
    const char *params; /* NULL: none */
    int32_t n_jobs;
    int32_t inner_max_num_threads; /* 0: each worker's share of the CPUs */
    int is_cluster; /* its workers start before the clock does, and no child of ours is one of them */

    int32_t workers;
    double wall_seconds;
    double cpu_seconds;   /* of this process and its worker processes */
    int32_t right[TASKS]; /* right answers of each task */
    char skipped[512];    /* why the backend cannot run here; "" where it ran */
} grid_run;

/* Runs the grid. Returns 0, also for a run that was skipped, or -1 after a line on stderr. */
int run_grid(grid_run *run, const digits *data, const ridge_task tasks[TASKS]);

/* Prints `what: ` and the library's text about this thread's last failing call on stderr. Returns -1. */
int report_error(const char *what);

#endif
