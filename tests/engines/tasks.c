/* The tasks of the engine tests, in a shared library as a cluster's workers need it, and the maps that call
 * them: engine_maps BACKEND PARAMS SCENARIO [ARGUMENT ...] A scenario prints what came of its map; the tests
 * read that. */
#include <parallel_backend.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void rest(void) {
    const struct timespec a_while = {0, 2000000};
    nanosleep(&a_while, NULL);
}

static void create(const char *path) {
    const int file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (file >= 0)
        close(file);
}

static int exists(const char *path) { return access(path, F_OK) == 0; }

/* How a map ended, and how long it took. */
static int report(pb_status status, double began) {
    pb_error_info info = {.struct_size = sizeof info};
    pb_last_error_info(&info);
    printf("status %s\nseconds %.3f\n", pb_status_name(status), seconds() - began);
    if (status != PB_OK)
        printf("attempts %u\ntext %s\n", (unsigned)info.attempts, pb_last_error());
    return status == PB_OK ? 0 : 1;
}

static void *memory(size_t size) {
    void *block = calloc(1, size > 0 ? size : 1);
    if (block == NULL)
        abort();
    return block;
}

static size_t number(char **arguments, int i, size_t otherwise) {
    return arguments[i] != NULL ? (size_t)strtoull(arguments[i], NULL, 10) : otherwise;
}

/* ---- squares ITEMS: the plain map ---- */

static int32_t square(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx;
    *(uint64_t *)output = *(const uint64_t *)input * index;
    return 0;
}

static int squares(char **arguments) {
    const size_t n = number(arguments, 0, 1000);
    uint64_t *in = memory(n * sizeof *in), *out = memory(n * sizeof *out);
    for (size_t i = 0; i < n; ++i)
        in[i] = i;
    const double began = seconds();
    const pb_status status = pb_parallel_map(square, NULL, n, in, sizeof *in, out, sizeof *out, NULL);
    size_t wrong = 0;
    for (size_t i = 0; i < n; ++i)
        wrong += out[i] != i * i;
    printf("wrong %zu\nn_jobs %d\n", wrong, pb_effective_n_jobs(0));
    free(in);
    free(out);
    return report(status, began);
}

/* ---- twice ITEMS: two maps, the second one whatever became of the first ---- */

static int twice(char **arguments) {
    printf("first %d\n", squares(arguments));
    return squares(arguments);
}

/* ---- ctx BYTES ITEMS: every item sums up a large ctx ---- */

struct big {
    uint64_t count, words[];
};

static int32_t sum_ctx(void *ctx, size_t index, const void *input, void *output) {
    (void)index, (void)input;
    const struct big *big = ctx;
    uint64_t sum = 0;
    for (uint64_t i = 0; i < big->count; ++i)
        sum += big->words[i];
    *(uint64_t *)output = sum;
    return (uintptr_t)ctx % 64 == 0 ? 0 : 1;
}

static int ctx(char **arguments) {
    const size_t count = number(arguments, 0, 1 << 20) / 8, n = number(arguments, 1, 20);
    struct big *big = memory(sizeof *big + count * 8);
    uint64_t expected = 0, *out = memory(n * sizeof *out);
    big->count = count;
    for (size_t i = 0; i < count; ++i)
        expected += big->words[i] = i * 2654435761u;
    pb_map_options options = {.struct_size = sizeof options};
    options.ctx_size = sizeof *big + count * 8;
    options.retries = 3;
    const double began = seconds();
    const pb_status status = pb_parallel_map(sum_ctx, big, n, NULL, 0, out, sizeof *out, &options);
    size_t wrong = 0;
    for (size_t i = 0; i < n; ++i)
        wrong += out[i] != expected;
    printf("wrong %zu\n", wrong);
    free(big);
    free(out);
    return report(status, began);
}

/* ---- die MARKER RETRIES [COLLECT]: item 3 kills its worker; once, if MARKER is a path; always, if it is
 * "always" ---- */

struct die {
    char marker[256];
};

static int32_t die_at_three(void *ctx, size_t index, const void *input, void *output) {
    (void)input;
    const struct die *die = ctx;
    *(uint64_t *)output = index + 1;
    if (index == 3 && !exists(die->marker)) {
        if (strcmp(die->marker, "always") != 0)
            create(die->marker);
        kill(getpid(), SIGKILL);
        for (;;)
            pause();
    }
    return 0;
}

static int die(char **arguments) {
    struct die how = {{0}};
    uint64_t out[8] = {0};
    int32_t statuses[8];
    snprintf(how.marker, sizeof how.marker, "%s", arguments[0]);
    pb_map_options options = {.struct_size = sizeof options};
    options.ctx_size = sizeof how;
    options.retries = (uint32_t)number(arguments, 1, 0);
    options.batch_size = 1;
    if (arguments[1] != NULL && arguments[2] != NULL) {
        options.flags = PB_COLLECT_ERRORS;
        options.statuses = statuses;
    }
    const double began = seconds();
    const pb_status status = pb_parallel_map(die_at_three, &how, 8, NULL, 0, out, sizeof *out, &options);
    size_t right = 0;
    for (size_t i = 0; i < 8; ++i)
        right += out[i] == i + 1;
    printf("right %zu\n", right);
    if (options.flags != 0)
        printf("fate %s\n", pb_status_name(statuses[3]));
    return report(status, began);
}

/* ---- hold FOLDER ITEMS [CANCEL]: each item notes in FOLDER that it has begun and runs until there is a file
 * "release" or its map is cancelled, and notes that it has ended. With CANCEL the map is cancelled once an
 * item has begun. ---- */

struct hold {
    char folder[256];
};

static int32_t hold_on(void *ctx, size_t index, const void *input, void *output) {
    (void)input, (void)output;
    const struct hold *hold = ctx;
    char path[320];
    snprintf(path, sizeof path, "%s/begun-%zu-%d", hold->folder, index, (int)getpid());
    create(path);
    snprintf(path, sizeof path, "%s/release", hold->folder);
    const double end = seconds() + 60;
    while (!exists(path) && !pb_cancelled() && seconds() < end)
        rest();
    snprintf(path, sizeof path, "%s/ended-%zu-%d", hold->folder, index, (int)getpid());
    create(path);
    return 0;
}

static int hold(char **arguments) {
    struct hold how = {{0}};
    snprintf(how.folder, sizeof how.folder, "%s", arguments[0]);
    pb_map_options options = {.struct_size = sizeof options};
    options.ctx_size = sizeof how;
    options.batch_size = 1;
    const double began = seconds();
    pb_job *job = NULL;
    pb_status status =
        pb_submit_map(hold_on, &how, number(arguments, 1, 4), NULL, 0, NULL, 0, &options, &job);
    if (status != PB_OK)
        return report(status, began);
    if (arguments[1] != NULL && arguments[2] != NULL) {
        char path[320];
        snprintf(path, sizeof path, "%s/cancel", how.folder);
        while (!exists(path))
            rest();
        pb_job_cancel(job);
    }
    status = pb_job_wait(job, -1);
    const int result = report(status, began);
    pb_job_free(job);
    return result;
}

/* ---- spread FOLDER ITEMS: each item takes 10 ms, until there is a file "release" in FOLDER, and leaves
 * "worker-PID" there ---- */

static int32_t work_here(void *ctx, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    const struct hold *spread = ctx;
    char path[320];
    snprintf(path, sizeof path, "%s/release", spread->folder);
    if (exists(path))
        return 0;
    for (int i = 0; i < 5; ++i)
        rest();
    snprintf(path, sizeof path, "%s/worker-%d", spread->folder, (int)getpid());
    create(path);
    return 0;
}

static int spread(char **arguments) {
    struct hold how = {{0}};
    snprintf(how.folder, sizeof how.folder, "%s", arguments[0]);
    const pb_map_options options = {.struct_size = sizeof options, .ctx_size = sizeof how};
    const double began = seconds();
    return report(pb_parallel_map(work_here, &how, number(arguments, 1, 1), NULL, 0, NULL, 0, &options),
                  began);
}

/* ---- bytes IN OUT ITEMS: inputs and results of these sizes ---- */

static int32_t reply_bytes(void *ctx, size_t index, const void *input, size_t size, pb_output *output) {
    (void)index;
    if (size > 0 && ((const char *)input)[size - 1] != 'x')
        return 1;
    char block[4096];
    memset(block, 'y', sizeof block);
    for (size_t left = *(const size_t *)ctx; left > 0;) {
        const size_t some = left < sizeof block ? left : sizeof block;
        if (pb_output_write(output, block, some) != PB_OK)
            return 0; /* the item fails with that */
        left -= some;
    }
    return 0;
}

static int bytes(char **arguments) {
    const size_t size = number(arguments, 0, 100), n = number(arguments, 2, 10);
    size_t reply = number(arguments, 1, 100), wrong = 0;
    char *input = memory(size);
    memset(input, 'x', size);
    pb_bytes *inputs = memory(n * sizeof *inputs);
    for (size_t i = 0; i < n; ++i)
        inputs[i] = (pb_bytes){input, size};
    pb_map_options options = {.struct_size = sizeof options};
    options.ctx_size = sizeof reply;
    pb_results *results = NULL;
    const double began = seconds();
    const pb_status status = pb_map_bytes(reply_bytes, &reply, n, inputs, &options, &results);
    for (size_t i = 0; status == PB_OK && i < n; ++i) {
        pb_bytes result = {0};
        wrong += pb_results_get(results, i, &result) != PB_OK || result.size != reply ||
                 (reply > 0 && ((const char *)result.data)[reply - 1] != 'y');
    }
    printf("wrong %zu\n", wrong);
    const int code = report(status, began);
    pb_results_free(results);
    free(inputs);
    free(input);
    return code;
}

/* ---- shares: what a task's own map would use ---- */

static int32_t share(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input;
    *(int32_t *)output = pb_effective_n_jobs(-1);
    return 0;
}

static int shares(char **arguments) {
    (void)arguments;
    int32_t out[4] = {0};
    const double began = seconds();
    const pb_status status = pb_parallel_map(share, NULL, 4, NULL, 0, out, sizeof *out, NULL);
    printf("shares %d %d %d %d\n", out[0], out[1], out[2], out[3]);
    return report(status, began);
}

/* ---- once: a map that must not run an item twice ---- */

static int once(char **arguments) {
    (void)arguments;
    uint64_t in[4] = {0, 1, 2, 3}, out[4];
    pb_map_options options = {.struct_size = sizeof options};
    options.flags = PB_NON_IDEMPOTENT;
    const double began = seconds();
    return report(pb_parallel_map(square, NULL, 4, in, 8, out, 8, &options), began);
}

/* ---- fence FOLDER: a map that must not run an item twice; each notes in FOLDER that it begins, and item 3
 * kills its worker ---- */

static int32_t note_and_die(void *ctx, size_t index, const void *input, void *output) {
    (void)input, (void)output;
    const struct hold *fence = ctx;
    char path[320];
    snprintf(path, sizeof path, "%s/begun-%zu-%d", fence->folder, index, (int)getpid());
    create(path);
    if (index == 3)
        kill(getpid(), SIGKILL);
    return 0;
}

static int fence(char **arguments) {
    struct hold how = {{0}};
    snprintf(how.folder, sizeof how.folder, "%s", arguments[0]);
    pb_map_options options = {.struct_size = sizeof options, .retries = 3, .flags = PB_NON_IDEMPOTENT};
    options.ctx_size = sizeof how;
    options.batch_size = 2;
    const double began = seconds();
    return report(pb_parallel_map(note_and_die, &how, 8, NULL, 0, NULL, 0, &options), began);
}

static const struct {
    const char *name;
    int (*run)(char **arguments);
} scenarios[] = {{"squares", squares}, {"twice", twice},  {"ctx", ctx},       {"die", die},
                 {"hold", hold},       {"bytes", bytes},  {"shares", shares}, {"once", once},
                 {"fence", fence},     {"spread", spread}};

/* The program. argv as main's; `pid` is printed first so that tests can find its bridge. */
int engine_maps(int argc, char **argv) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("pid %d\n", (int)getpid());
    for (size_t i = 0; argc > 3 && i < sizeof scenarios / sizeof *scenarios; ++i) {
        if (strcmp(argv[3], scenarios[i].name) != 0)
            continue;
        pb_scope scope = 0;
        const double began = seconds();
        const char *workers = getenv("PB_TEST_WORKERS");
        const int32_t n_jobs = workers != NULL ? atoi(workers) : 0;
        const pb_status status = pb_push_backend(argv[1], n_jobs, 0, argv[2], &scope);
        if (status != PB_OK)
            return report(status, began);
        const int code = scenarios[i].run(argv + 4);
        pb_pop_backend(scope);
        pb_shutdown();
        return code;
    }
    fputs("usage: engine_maps BACKEND PARAMS SCENARIO [ARGUMENT ...]\n", stderr);
    return 2;
}
