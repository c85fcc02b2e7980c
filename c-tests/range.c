/* Maps whose caller brings a loop over a range of items (pb_map_options.range), for items that are too short
 * to call a function for each. */
#include "scopes.h"

#include <stdatomic.h>
#include <stddef.h>

enum { N = 10000, NONE = N };

typedef struct counts {
    atomic_size_t by_loop, by_function;
    size_t failing;
} counts;

static int32_t square(counts *c, size_t index, const int *input, int *output) {
    if (index == c->failing)
        return 7;
    if (output != NULL)
        *output = *input * *input;
    return 0;
}

static int32_t one(void *ctx, size_t index, const void *input, void *output) {
    counts *c = ctx;
    atomic_fetch_add(&c->by_function, 1);
    return square(c, index, input, output);
}

static int32_t many(void *ctx, size_t begin, size_t end, const void *inputs, void *outputs, size_t *failed) {
    counts *c = ctx;
    const int *in = inputs;
    int *out = outputs;
    CHECK(begin < end && end <= N);
    CHECK(pb_worker_index() >= 0);
    for (size_t i = begin; i < end; i++) {
        const int32_t code = square(c, i, in ? in + (i - begin) : NULL, out ? out + (i - begin) : NULL);
        if (code != 0) {
            *failed = i;
            CHECK_OK(pb_task_fail("not this one"));
            return code;
        }
        atomic_fetch_add(&c->by_loop, 1);
    }
    return 0;
}

static pb_map_options with_loop(void) {
    pb_map_options options = {.struct_size = sizeof options};
    options.range = many;
    return options;
}

static pb_status run(counts *c, size_t n, const int *inputs, int *outputs, const pb_map_options *options) {
    *c = (counts){.failing = c->failing};
    return pb_parallel_map(one, c, n, inputs, sizeof *inputs, outputs, sizeof *outputs, options);
}

static void all_squares(const char *backend, int32_t n_jobs) {
    static int inputs[N], outputs[N];
    const pb_map_options options = with_loop();
    counts c = {.failing = NONE};
    const pb_scope scope = open_scope(backend, n_jobs);
    for (int i = 0; i < N; i++) {
        inputs[i] = i;
        outputs[i] = -1;
    }
    CHECK_OK(run(&c, N, inputs, outputs, &options));
    for (int i = 0; i < N; i++)
        CHECK_INT(i * i, outputs[i]);
    close_scope(scope);
}

TEST(the_loop_runs_each_item_once) {
    const pb_map_options options = with_loop();
    const pb_scope scope = open_scope("threading", 4);
    counts c = {.failing = NONE};
    for (int round = 0; round < times(200, 10); round++) {
        CHECK_OK(run(&c, N, NULL, NULL, &options));
        CHECK_INT(N, c.by_loop);
        CHECK_INT(0, c.by_function);
    }
    close_scope(scope);
}

TEST(it_has_the_elements_of_its_first_item) {
    all_squares("threading", 4);
    all_squares("threading", 1);
    all_squares("sequential", 1);
    all_squares("multiprocessing", 2);
}

TEST(the_item_that_fails_is_named) {
    const pb_map_options options = with_loop();
    const pb_scope scope = open_scope("threading", 4);
    for (size_t round = 0; round < (size_t)times(200, 10); round++) {
        counts c = {.failing = round * 977 % N};
        CHECK_STATUS(run(&c, N, NULL, NULL, &options), PB_ERR_TASK_FAILED);
        CHECK_TEXT("not this one");
        pb_error_info info = {.struct_size = sizeof info};
        CHECK_OK(pb_last_error_info(&info));
        CHECK_INT(c.failing, info.task_index);
        CHECK_INT(7, info.task_code);
        CHECK(c.by_loop < N);
    }
    close_scope(scope);
}

static int32_t fail_without_a_name(void *ctx, size_t begin, size_t end, const void *inputs, void *outputs,
                                   size_t *failed) {
    (void)ctx, (void)begin, (void)inputs, (void)outputs;
    *failed = end + 1000;
    return 7;
}

TEST(an_item_that_is_not_of_the_range_is_taken_for_its_last) {
    pb_map_options options = with_loop();
    options.range = fail_without_a_name;
    options.batch_size = N;
    counts c = {.failing = NONE};
    const pb_scope scope = open_scope("threading", 2);
    CHECK_STATUS(run(&c, N, NULL, NULL, &options), PB_ERR_TASK_FAILED);
    pb_error_info info = {.struct_size = sizeof info};
    CHECK_OK(pb_last_error_info(&info));
    CHECK_INT(N - 1, info.task_index);
    close_scope(scope);
}

static int32_t go_on(void *user, size_t done, size_t failed, size_t total, double seconds) {
    (void)user, (void)done, (void)failed, (void)total, (void)seconds;
    return 0;
}

TEST(where_single_items_are_watched_the_function_runs_them) {
    static int32_t statuses[N];
    const pb_scope scope = open_scope("threading", 2);
    pb_map_options watched[4] = {with_loop(), with_loop(), with_loop(), with_loop()};
    watched[0].statuses = statuses;
    watched[1].timeout = 60;
    watched[2].progress = go_on;
    watched[3].flags = PB_COLLECT_ERRORS;
    for (int i = 0; i < 4; i++) {
        counts c = {.failing = NONE};
        CHECK_OK(run(&c, N, NULL, NULL, &watched[i]));
        CHECK_INT(N, c.by_function);
        CHECK_INT(0, c.by_loop);
    }
    close_scope(scope);
}

TEST(another_loop_is_another_map) {
    const pb_scope scope = open_scope("threading", 2);
    const pb_map_options options = with_loop();
    for (int round = 0; round < 100; round++) {
        const int looped = round / 10 % 2;
        counts c = {.failing = NONE};
        CHECK_OK(run(&c, 3, NULL, NULL, looped ? &options : NULL));
        CHECK_INT(looped ? 3 : 0, c.by_loop);
        CHECK_INT(looped ? 0 : 3, c.by_function);
    }
    close_scope(scope);
}

TEST(options_from_before_there_were_loops_are_understood) {
    pb_map_options options = with_loop();
    options.struct_size = offsetof(pb_map_options, range);
    counts c = {.failing = NONE};
    const pb_scope scope = open_scope("threading", 2);
    CHECK_OK(run(&c, N, NULL, NULL, &options));
    CHECK_INT(N, c.by_function);
    options.struct_size--;
    CHECK_STATUS(run(&c, N, NULL, NULL, &options), PB_ERR_ABI);
    close_scope(scope);
}

static int32_t no_bytes(void *ctx, size_t index, const void *input, size_t size, pb_output *output) {
    (void)ctx, (void)index, (void)input, (void)size, (void)output;
    return 0;
}

static int32_t no_fold(void *ctx, size_t begin, size_t end, const void *inputs, void *partial) {
    (void)ctx, (void)begin, (void)end, (void)inputs, (void)partial;
    return 0;
}

static int32_t no_combine(void *ctx, void *left, const void *right) {
    (void)ctx, (void)left, (void)right;
    return 0;
}

TEST(calls_without_use_for_it_refuse_it) {
    const pb_map_options options = with_loop();
    pb_results *results = NULL;
    CHECK_STATUS(pb_map_bytes(no_bytes, NULL, 1, NULL, &options, &results), PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("range");
    int sum = 0;
    CHECK_STATUS(pb_reduce(no_fold, no_combine, NULL, 1, NULL, 0, &sum, sizeof sum, &options),
                 PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("range");
}

int main(void) {
    forget_environment();
    RUN(the_loop_runs_each_item_once);
    RUN(it_has_the_elements_of_its_first_item);
    RUN(the_item_that_fails_is_named);
    RUN(an_item_that_is_not_of_the_range_is_taken_for_its_last);
    RUN(where_single_items_are_watched_the_function_runs_them);
    RUN(another_loop_is_another_map);
    RUN(options_from_before_there_were_loops_are_understood);
    RUN(calls_without_use_for_it_refuse_it);
    return check_result();
}
