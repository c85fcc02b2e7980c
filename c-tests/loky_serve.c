/* A worker program of its own, as one in R or Julia would be: it gets bytes and gives bytes, and knows
 * nothing of tasks. */
#include "sync.h"

#include <signal.h>
#include <unistd.h>

static int32_t served = 0;

/* The worker's side: the input backwards, then the nesting level. */
static int32_t backwards(void *user, size_t index, const void *input, size_t size, pb_output *output) {
    int32_t *count = user;
    const char *bytes = input;
    ++*count;
    if (size == 3 && memcmp(bytes, "bad", 3) == 0) {
        pb_task_fail("a bad word");
        return 5;
    }
    if (size == 4 && memcmp(bytes, "kill", 4) == 0)
        raise(SIGKILL);
    for (size_t i = size; i-- > 0;)
        if (pb_output_write(output, &bytes[i], 1) != PB_OK)
            return 1;
    const int32_t level = pb_nesting_level();
    (void)index;
    return pb_output_write(output, &level, sizeof level) == PB_OK ? 0 : 2;
}

/* The caller's side: nobody calls it, workers have a handler. */
static int32_t elsewhere(void *ctx, size_t index, const void *input, size_t size, pb_output *output) {
    (void)ctx, (void)index, (void)input, (void)size, (void)output;
    return 99;
}

static pb_scope use_workers(void) {
    char self[512], params[600];
    const ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    REQUIRE(length > 0);
    self[length] = '\0';
    snprintf(params, sizeof params, "worker=%s serve", self);
    pb_scope scope = 0;
    REQUIRE(pb_push_backend("loky", 2, 0, params, &scope) == PB_OK);
    return scope;
}

static pb_map_options by_name(void) {
    pb_map_options options = {.struct_size = sizeof options};
    options.task = "backwards";
    return options;
}

TEST(its_handler_runs_the_items) {
    enum { N = 100 };
    char texts[N][16];
    pb_bytes inputs[N];
    for (int i = 0; i < N; ++i) {
        snprintf(texts[i], sizeof texts[i], "item %d", i);
        inputs[i] = (pb_bytes){texts[i], strlen(texts[i])};
    }
    const pb_map_options options = by_name();
    pb_results *results = NULL;
    CHECK_OK(pb_map_bytes(elsewhere, NULL, N, inputs, &options, &results));
    for (size_t i = 0; i < N; ++i) {
        pb_bytes out;
        CHECK_OK(pb_results_get(results, i, &out));
        const char *bytes = out.data;
        int32_t level;
        REQUIRE(out.size == inputs[i].size + sizeof level);
        for (size_t k = 0; k < inputs[i].size; ++k)
            CHECK_INT(texts[i][inputs[i].size - 1 - k], bytes[k]);
        memcpy(&level, bytes + inputs[i].size, sizeof level);
        CHECK_INT(1, level);
    }
    pb_results_free(results);
    CHECK_INT(0, served);
}

TEST(failures_and_deaths_are_those_of_items) {
    const pb_bytes inputs[] = {{"one", 3}, {"bad", 3}, {"kill", 4}, {"four", 4}};
    int32_t statuses[4];
    pb_map_options options = by_name();
    options.flags = PB_COLLECT_ERRORS;
    options.statuses = statuses;
    pb_results *results = NULL;
    CHECK_STATUS(pb_map_bytes(elsewhere, NULL, 4, inputs, &options, &results), PB_ERR_TASK_FAILED);
    CHECK_INT(0, statuses[0]);
    CHECK_INT(5, statuses[1]);
    CHECK_INT(PB_ERR_WORKER_LOST, statuses[2]);
    CHECK_INT(0, statuses[3]);
    pb_bytes out;
    CHECK_OK(pb_results_get(results, 3, &out));
    CHECK_INT(8, out.size);
    CHECK_INT(0, memcmp(out.data, "ruof", 4));
    pb_results_free(results);
    /* One in the middle of a chunk: those before it run again. */
    options.batch_size = 4;
    CHECK_STATUS(pb_map_bytes(elsewhere, NULL, 4, inputs, &options, &results), PB_ERR_TASK_FAILED);
    CHECK_INT(0, statuses[0]);
    CHECK_INT(5, statuses[1]);
    CHECK_INT(PB_ERR_WORKER_LOST, statuses[2]);
    CHECK_INT(0, statuses[3]);
    CHECK_OK(pb_results_get(results, 0, &out));
    CHECK_INT(0, memcmp(out.data, "eno", 3));
    pb_results_free(results);
}

static int32_t plain(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    return 0;
}

TEST(a_map_of_elements_is_refused) {
    const pb_map_options options = by_name();
    CHECK_STATUS(pb_parallel_map(plain, NULL, 3, NULL, 0, NULL, 0, &options), PB_ERR_TASK_NOT_PORTABLE);
    CHECK_TEXT("pb_map_bytes");
}

TEST(in_a_program_that_is_no_worker_there_is_nobody_to_serve) {
    CHECK_STATUS(pb_worker_serve(3, backwards, NULL), PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("not started as a worker");
    CHECK_STATUS(pb_worker_serve(3, NULL, NULL), PB_ERR_INVALID_ARGUMENT);
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "serve") == 0)
        return pb_worker_serve(3, backwards, &served) == PB_OK ? 0 : 1;
    const pb_scope scope = use_workers();
    RUN(its_handler_runs_the_items);
    RUN(failures_and_deaths_are_those_of_items);
    RUN(a_map_of_elements_is_refused);
    RUN(in_a_program_that_is_no_worker_there_is_nobody_to_serve);
    CHECK_OK(pb_pop_backend(scope));
    CHECK_OK(pb_shutdown());
    return check_result();
}
