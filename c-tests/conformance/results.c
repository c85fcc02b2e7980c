/* A map's results: those of the loop that it stands for. */
#include "conformance.h"

/* ---- the same results as a serial loop ---- */

typedef struct line {
    int64_t slope, offset;
} line;

static int32_t point_on_line(void *ctx, size_t index, const void *input, void *output) {
    const line *l = ctx;
    *(int64_t *)output = l->slope * *(const int64_t *)input + l->offset + (int64_t)index;
    return 0;
}

static void check_against_loop(size_t n, int32_t n_jobs, size_t batch_size) {
    line l = {.slope = 3, .offset = (int64_t)n};
    int64_t *inputs = malloc((n + 1) * sizeof *inputs);
    int64_t *outputs = malloc((n + 1) * sizeof *outputs);
    for (size_t i = 0; i <= n; ++i) {
        inputs[i] = (int64_t)(i * i % 1009);
        outputs[i] = -1;
    }
    pb_map_options options = with_ctx_size(sizeof l);
    options.n_jobs = n_jobs;
    options.batch_size = batch_size;
    CHECK_OK(
        pb_parallel_map(point_on_line, &l, n, inputs, sizeof *inputs, outputs, sizeof *outputs, &options));
    for (size_t i = 0; i < n; ++i) {
        int64_t expected;
        point_on_line(&l, i, &inputs[i], &expected);
        CHECK_INT(expected, outputs[i]);
    }
    CHECK_INT(-1, outputs[n]); /* the element behind the last */
    free(inputs);
    free(outputs);
}

TEST(results_are_those_of_a_serial_loop) {
    static const size_t sizes[] = {0, 1, 2, 3, 7, 64, 100, 517, 1000, 4099};
    static const int32_t workers[] = {0, 1, 2, 3, 5, -1, -2};
    static const size_t batches[] = {0, 1, 3, 1000};
    const size_t n_sizes = suite.is_slow ? 7 : sizeof sizes / sizeof *sizes;
    const size_t n_workers = suite.is_slow ? 3 : sizeof workers / sizeof *workers;
    const pb_scope scope = use_backend(2);
    for (size_t s = 0; s < n_sizes; ++s)
        for (size_t w = 0; w < n_workers; ++w)
            for (size_t b = 0; b < sizeof batches / sizeof *batches; ++b)
                check_against_loop(sizes[s], workers[w], batches[b]);
    CHECK_OK(pb_pop_backend(scope));
}

/* ---- what a task is given ---- */

typedef struct arrays {
    int32_t inputs, outputs;
} arrays;

/* Fails unless exactly the arrays that ctx tells of are there. */
static int32_t expect_arrays(void *ctx, size_t index, const void *input, void *output) {
    const arrays *expected = ctx;
    (void)index;
    return (input != NULL) == expected->inputs && (output != NULL) == expected->outputs ? 0 : 1;
}

TEST(an_array_that_is_not_given_is_NULL_in_tasks) {
    enum { N = 20 };
    int32_t in[N] = {0}, out[N] = {0};
    const pb_scope scope = use_backend(2);
    for (int given = 0; given < 4; ++given) {
        arrays expected = {given & 1, given >> 1};
        const pb_map_options options = with_ctx_size(sizeof expected);
        CHECK_OK(pb_parallel_map(expect_arrays, &expected, N, expected.inputs ? in : NULL, sizeof *in,
                                 expected.outputs ? out : NULL, sizeof *out, &options));
    }
    CHECK_OK(pb_pop_backend(scope));
}

enum { LARGE = 1003 };

static int32_t reverse_bytes(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index;
    for (size_t i = 0; i < LARGE; ++i)
        ((unsigned char *)output)[i] = ((const unsigned char *)input)[LARGE - 1 - i];
    return 0;
}

TEST(elements_of_odd_size_arrive_whole) {
    enum { N = 40 };
    static unsigned char in[N][LARGE], out[N][LARGE];
    for (size_t i = 0; i < sizeof in; ++i)
        in[i / LARGE][i % LARGE] = (unsigned char)(i % 251);
    const pb_scope scope = use_backend(3);
    CHECK_OK(pb_parallel_map(reverse_bytes, NULL, N, in, LARGE, out, LARGE, NULL));
    CHECK_OK(pb_pop_backend(scope));
    for (size_t i = 0; i < sizeof in; ++i)
        CHECK_INT(in[i / LARGE][i % LARGE], out[i / LARGE][LARGE - 1 - i % LARGE]);
}

/* ---- how often a task runs ---- */

static int32_t count_run(void *ctx, size_t index, const void *input, void *output) {
    (void)input, (void)output;
    __atomic_fetch_add((int32_t *)ctx + index, 1, __ATOMIC_RELAXED);
    return 0;
}

/* Shared: the counts are the caller's. */
TEST(every_item_runs_exactly_once) {
    enum { N = 3000 };
    static int32_t counts[N];
    const pb_scope scope = use_backend(4);
    const int32_t rounds = suite.is_slow ? 2 : 20;
    for (int32_t round = 1; round <= rounds; ++round) {
        pb_map_options options = with_ctx_size(sizeof counts);
        options.batch_size = (size_t)round % 4; /* 0 is adaptive */
        CHECK_OK(pb_parallel_map(count_run, counts, N, NULL, 0, NULL, 0, &options));
        for (size_t i = 0; i < N; ++i)
            CHECK_INT(round, counts[i]);
    }
    CHECK_OK(pb_pop_backend(scope));
}

void test_results(void) {
    RUN(results_are_those_of_a_serial_loop);
    RUN(an_array_that_is_not_given_is_NULL_in_tasks);
    RUN(elements_of_odd_size_arrive_whole);
    RUN_SHARED(every_item_runs_exactly_once);
}
