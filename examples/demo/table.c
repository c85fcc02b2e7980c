#include "table.h"

#include <stdio.h>

static double gamma_of(int pair) { return ridge_gammas[pair / ALPHAS]; }
static double alpha_of(int pair) { return ridge_alphas[pair % ALPHAS]; }

pair_scores score_pairs(const int32_t right[TASKS]) {
    pair_scores scores = {.best = 0};
    for (int task = 0; task < TASKS; task++)
        scores.right[task / FOLDS] += right[task];
    for (int pair = 1; pair < PAIRS; pair++)
        if (scores.right[pair] > scores.right[scores.best])
            scores.best = pair;
    return scores;
}

void print_scores(const pair_scores *scores, size_t rows) {
    for (int pair = 0; pair < PAIRS; pair++)
        printf("%g %g %d\n", gamma_of(pair), alpha_of(pair), scores->right[pair]);
    int32_t right = scores->right[scores->best];
    printf("best: gamma %g, alpha %g: %d of %zu right (%.2f %%)\n\n", gamma_of(scores->best),
           alpha_of(scores->best), right, rows, 100.0 * right / (double)rows);
}

void print_table_head(void) {
    printf("%-28s %8s %8s %9s %8s\n", "backend", "workers", "wall s", "speed-up", "CPU s");
    fflush(stdout);
}

void print_table_row(const grid_run *run, const grid_run *reference) {
    char cpu[32] = "-"; /* what a cluster uses, we do not see */
    if (!run->is_cluster)
        snprintf(cpu, sizeof cpu, "%.2f", run->cpu_seconds);
    if (run->skipped[0])
        printf("%-28s not run: %s\n", run->label, run->skipped);
    else
        printf("%-28s %8d %8.2f %9.2f %8s\n", run->label, run->workers, run->wall_seconds,
               reference->wall_seconds / run->wall_seconds, cpu);
    fflush(stdout);
}

static void json_string(FILE *file, const char *text) {
    fputc('"', file);
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            fprintf(file, "\\%c", *text);
        else if ((unsigned char)*text < ' ')
            fprintf(file, "\\u%04x", *text);
        else
            fputc(*text, file);
    }
    fputc('"', file);
}

static void json_run(FILE *file, const grid_run *run, const grid_run *reference) {
    fputs("{\"label\": ", file);
    json_string(file, run->label);
    fputs(", \"backend\": ", file);
    json_string(file, run->backend);
    if (run->skipped[0]) {
        fputs(", \"skipped\": ", file);
        json_string(file, run->skipped);
    } else {
        fprintf(file, ", \"workers\": %d, \"wall_seconds\": %.6f, \"speed_up\": %.4f, \"cpu_seconds\": %.6f",
                run->workers, run->wall_seconds, reference->wall_seconds / run->wall_seconds,
                run->cpu_seconds);
    }
    fputc('}', file);
}

static void json_pair(FILE *file, const pair_scores *scores, int pair) {
    fprintf(file, "{\"gamma\": %g, \"alpha\": %g, \"right\": %d}", gamma_of(pair), alpha_of(pair),
            scores->right[pair]);
}

int write_json(const char *path, const pair_scores *scores, size_t rows, const grid_run *runs,
               size_t n_runs) {
    FILE *file = fopen(path, "w");
    if (!file) {
        perror(path);
        return -1;
    }
    fprintf(file, "{\n  \"rows\": %zu,\n  \"counts\": [", rows);
    for (int pair = 0; pair < PAIRS; pair++) {
        fputs(pair ? ",\n    " : "\n    ", file);
        json_pair(file, scores, pair);
    }
    fputs("\n  ],\n  \"best\": ", file);
    json_pair(file, scores, scores->best);
    fputs(",\n  \"runs\": [", file);
    for (size_t i = 0; i < n_runs; i++) {
        fputs(i ? ",\n    " : "\n    ", file);
        json_run(file, &runs[i], &runs[0]);
    }
    fputs("\n  ]\n}\n", file);
    int failed = ferror(file);
    if (fclose(file) || failed) {
        fprintf(stderr, "%s: cannot be written\n", path);
        return -1;
    }
    return 0;
}
