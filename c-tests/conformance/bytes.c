/* Maps of bytes: inputs and results of any size. */
#include "conformance.h"

enum { N = 300 };

/* Item i gets i * i % 977 bytes; its result is each of them, and then the number of times that ctx says. */
static size_t size_of_input(size_t index) { return index * index % 977; }

static int32_t repeat(void *ctx, size_t index, const void *input, size_t size, pb_output *output) {
    const int32_t times = ctx != NULL ? *(const int32_t *)ctx : 1;
    if (size != size_of_input(index) || (input == NULL && size > 0))
        return 1;
    for (int32_t i = 0; i < times; ++i)
        if (pb_output_write(output, input, size) != PB_OK)
            return 2;
    return 0;
}

/* Byte k of input i. */
static unsigned char byte_of(size_t index, size_t k) { return (unsigned char)(index * 31 + k); }

static unsigned char *make_inputs(pb_bytes *inputs) {
    size_t total = 0;
    for (size_t i = 0; i < N; ++i)
        total += size_of_input(i);
    unsigned char *bytes = malloc(total + 1), *next = bytes;
    for (size_t i = 0; i < N; ++i) {
        inputs[i] = (pb_bytes){next, size_of_input(i)};
        for (size_t k = 0; k < inputs[i].size; ++k)
            *next++ = byte_of(i, k);
    }
    return bytes;
}

static void check_result_of(const pb_results *results, size_t index, int32_t times) {
    pb_bytes out = {NULL, SIZE_MAX};
    CHECK_OK(pb_results_get(results, index, &out));
    const size_t size = size_of_input(index);
    CHECK_INT(size * (size_t)times, out.size);
    for (size_t k = 0; k < out.size; ++k)
        CHECK_INT(byte_of(index, k % size), ((const unsigned char *)out.data)[k]);
}

TEST(bytes_of_any_size_go_in_and_come_out) {
    pb_bytes inputs[N];
    unsigned char *bytes = make_inputs(inputs);
    const pb_scope scope = use_backend(3);
    for (int32_t times = 0; times < 4; ++times)
        for (size_t batch_size = 0; batch_size < 60; batch_size += 59) {
            pb_map_options options = with_ctx_size(sizeof times);
            options.batch_size = batch_size;
            pb_results *results = NULL;
            CHECK_OK(pb_map_bytes(repeat, &times, N, inputs, &options, &results));
            for (size_t i = 0; i < N; ++i)
                check_result_of(results, i, times);
            pb_results_free(results);
        }
    CHECK_OK(pb_pop_backend(scope));
    free(bytes);
}

static int32_t write_megabytes(void *ctx, size_t index, const void *input, size_t size, pb_output *output) {
    unsigned char piece[100000];
    (void)ctx, (void)input;
    if (size != 0)
        return 1;
    memset(piece, (int)index + 1, sizeof piece);
    for (size_t i = 0; i < 10 * index; ++i)
        if (pb_output_write(output, piece, sizeof piece) != PB_OK)
            return 2;
    return 0;
}

TEST(results_may_be_large_and_there_need_be_no_inputs) {
    enum { LARGE = 6 };
    const pb_scope scope = use_backend(2);
    pb_results *results = NULL;
    CHECK_OK(pb_map_bytes(write_megabytes, NULL, LARGE, NULL, NULL, &results));
    for (size_t i = 0; i < LARGE; ++i) {
        pb_bytes out;
        CHECK_OK(pb_results_get(results, i, &out));
        CHECK_INT(i * 1000000, out.size);
        for (size_t k = 0; k < out.size; k += 999)
            CHECK_INT(i + 1, ((const unsigned char *)out.data)[k]);
    }
    pb_results_free(results);
    CHECK_OK(pb_pop_backend(scope));
}

static int32_t fail_every_seventh(void *ctx, size_t index, const void *input, size_t size,
                                  pb_output *output) {
    const int32_t code = repeat(ctx, index, input, size, output);
    if (index % 7 != 3 || code != 0)
        return code;
    pb_task_fail("seventh");
    return 77;
}

TEST(a_failed_item_has_no_result_and_the_others_have) {
    pb_bytes inputs[N];
    int32_t statuses[N];
    unsigned char *bytes = make_inputs(inputs);
    pb_map_options options = with_ctx_size(0);
    options.statuses = statuses;
    const pb_scope scope = use_backend(2);
    pb_results *results = NULL;
    CHECK_STATUS(pb_map_bytes(fail_every_seventh, NULL, N, inputs, &options, &results), PB_ERR_TASK_FAILED);
    CHECK_TEXT("seventh");
    CHECK(results == NULL);
    options.flags = PB_COLLECT_ERRORS;
    CHECK_STATUS(pb_map_bytes(fail_every_seventh, NULL, N, inputs, &options, &results), PB_ERR_TASK_FAILED);
    CHECK_TEXT("43 of 300 items failed");
    for (size_t i = 0; i < N; ++i) {
        CHECK_INT(i % 7 == 3 ? 77 : 0, statuses[i]);
        if (i % 7 != 3) {
            check_result_of(results, i, 1);
            continue;
        }
        pb_bytes out = {&out, 5};
        CHECK_STATUS(pb_results_get(results, i, &out), PB_ERR_TASK_FAILED);
        CHECK_INT(5, out.size);
    }
    pb_results_free(results);
    CHECK_OK(pb_pop_backend(scope));
    free(bytes);
}

TEST(a_map_of_no_bytes_has_no_results) {
    const pb_scope scope = use_backend(2);
    pb_results *results = NULL;
    CHECK_OK(pb_map_bytes(repeat, NULL, 0, NULL, NULL, &results));
    CHECK(results != NULL);
    pb_bytes out;
    CHECK_STATUS(pb_results_get(results, 0, &out), PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("had 0 items");
    pb_results_free(results);
    CHECK_OK(pb_pop_backend(scope));
}

void test_bytes(void) {
    RUN(bytes_of_any_size_go_in_and_come_out);
    RUN(results_may_be_large_and_there_need_be_no_inputs);
    RUN(a_failed_item_has_no_result_and_the_others_have);
    RUN(a_map_of_no_bytes_has_no_results);
}
