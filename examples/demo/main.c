/* Which kernel width and ridge penalty recognise handwritten digits best, and what does each backend make of
 * the 80 tasks that answer it? Every task calls BLAS and LAPACK, which would start threads of their own. */
#include "table.h"

#include <parallel_backend.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_RUNS     32
#define MAX_CLUSTERS 8

typedef struct demo_state {
    digits data;
    ridge_task tasks[TASKS];
    pair_scores scores;
    grid_run runs[MAX_RUNS]; /* the first is the reference */
    size_t n_runs;
    char names[1024]; /* of the backends; the labels of further runs point into it */
} demo_state;

typedef struct demo_options {
    const char *data;
    const char *json;             /* NULL: none */
    char *clusters[MAX_CLUSTERS]; /* BACKEND:PARAMS */
    size_t n_clusters;
} demo_options;

static int usage(const char *program) {
    fprintf(stderr,
            "usage: %s [--data FILE] [--json FILE] [--plugin LIBRARY]... [--cluster BACKEND:PARAMS]...\n",
            program);
    return 2;
}

/* Runs the grid on one backend, adds it to the table and compares its answers with those of the first. */
static int add_run(demo_state *demo, grid_run what) {
    if (demo->n_runs == MAX_RUNS) {
        fprintf(stderr, "more than %d backends\n", MAX_RUNS);
        return -1;
    }
    grid_run *reference = &demo->runs[0], *run = &demo->runs[demo->n_runs];
    *run = what;
    if (run_grid(run, &demo->data, demo->tasks))
        return -1;
    if (demo->n_runs++ == 0) {
        demo->scores = score_pairs(run->right);
        print_scores(&demo->scores, demo->data.rows);
        print_table_head();
    }
    print_table_row(run, reference);
    if (!run->skipped[0] && memcmp(run->right, reference->right, sizeof run->right)) {
        fprintf(stderr, "%s: the answers differ from those of %s\n", run->label, reference->label);
        return -1;
    }
    return 0;
}

static int run_builtin(demo_state *demo) {
    const grid_run runs[] = {
        {.label = "sequential", .backend = "sequential", .n_jobs = 1},
        {.label = "threading", .backend = "threading", .n_jobs = -1},
        {.label = "threading, no inner limit",
         .backend = "threading",
         .n_jobs = -1,
         .inner_max_num_threads = pb_cpu_count(0)},
    };
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++)
        if (add_run(demo, runs[i]))
            return -1;
    return 0;
}

/* Those that run on a cluster do so only when its address is given. */
static int needs_address(const char *backend) {
    return strcmp(backend, "dask") == 0 || strcmp(backend, "ray") == 0 || strcmp(backend, "mpi") == 0;
}

/* Every other backend that the library knows, built in or from a plugin. */
static int run_others(demo_state *demo) {
    size_t needed;
    if (pb_backend_names(demo->names, sizeof demo->names, &needed) != PB_OK)
        return report_error("pb_backend_names");
    for (char *name = strtok(demo->names, ", "); name; name = strtok(NULL, ", ")) {
        if (strcmp(name, "sequential") == 0 || strcmp(name, "threading") == 0 || needs_address(name))
            continue;
        if (add_run(demo, (grid_run){.label = name, .backend = name, .n_jobs = -1}))
            return -1;
    }
    return 0;
}

/* `text` is BACKEND:PARAMS, and is cut in two. */
static int run_cluster(demo_state *demo, char *text) {
    char *params = strchr(text, ':');
    if (params)
        *params++ = '\0';
    return add_run(
        demo, (grid_run){.label = text, .backend = text, .params = params, .n_jobs = -1, .is_cluster = 1});
}

static int run_clusters(demo_state *demo, const demo_options *options) {
    for (size_t i = 0; i < options->n_clusters; i++)
        if (run_cluster(demo, options->clusters[i]))
            return -1;
    return 0;
}

static int run_demo(demo_state *demo, const demo_options *options) {
    if (digits_read(options->data, &demo->data))
        return -1;
    ridge_grid(demo->tasks);
    if (run_builtin(demo) || run_others(demo) || run_clusters(demo, options))
        return -1;
    if (options->json && write_json(options->json, &demo->scores, demo->data.rows, demo->runs, demo->n_runs))
        return -1;
    if (pb_shutdown() != PB_OK) /* lets the other ranks of an MPI job go */
        return report_error("pb_shutdown");
    return 0;
}

/* Reads the options, and loads the plugins that they name. Returns 0, or the exit code of the program. */
static int parse_options(int argc, char **argv, demo_options *options) {
    for (int i = 1; i < argc; i += 2) {
        char *name = argv[i], *value = argv[i + 1];
        if (!value)
            return usage(argv[0]);
        if (strcmp(name, "--data") == 0) {
            options->data = value;
        } else if (strcmp(name, "--json") == 0) {
            options->json = value;
        } else if (strcmp(name, "--cluster") == 0 && options->n_clusters < MAX_CLUSTERS) {
            options->clusters[options->n_clusters++] = value;
        } else if (strcmp(name, "--plugin") != 0) {
            return usage(argv[0]);
        } else if (pb_load_plugin(value) != PB_OK) {
            report_error(value);
            return EXIT_FAILURE;
        }
    }
    return 0;
}

int main(int argc, char **argv) {
    pb_worker_main(argc, argv); /* workers of backend loky are this program */
    demo_options options = {.data = DEMO_DATA};
    int exit_code = parse_options(argc, argv, &options);
    if (exit_code)
        return exit_code;
    demo_state *demo = calloc(1, sizeof *demo);
    if (!demo) {
        fputs("out of memory\n", stderr);
        return EXIT_FAILURE;
    }
    int failed = run_demo(demo, &options);
    free(demo);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
