/* What the demo shows: the answers of the grid, the table of the runs, and both as JSON. */
#ifndef DEMO_TABLE_H
#define DEMO_TABLE_H

#include "run.h"

/* Right answers of each (gamma, alpha) over all folds. */
typedef struct pair_scores {
    int32_t right[PAIRS];
    int best; /* the first pair with the most of them */
} pair_scores;

pair_scores score_pairs(const int32_t right[TASKS]);

/* A line `gamma alpha right` for each pair, then the best one. */
void print_scores(const pair_scores *scores, size_t rows);

void print_table_head(void);

/* One row; speed-up is against `reference`. */
void print_table_row(const grid_run *run, const grid_run *reference);

/* Returns 0, or -1 after a line on stderr. */
int write_json(const char *path, const pair_scores *scores, size_t rows, const grid_run *runs, size_t n_runs);

#endif
