/* pb_map_bytes beside its results, which conformance/bytes.c sees to: arguments, options, faults. */
#include "address_space.h"
#include "forked.h"

enum { N = 40 };

static int32_t echo(void *ctx, size_t index, const void *input, size_t size, pb_output *output) {
    (void)ctx, (void)index;
    return pb_output_write(output, input, size) == PB_OK ? 0 : 1;
}

TEST(bad_arguments_are_told) {
    pb_results *results = NULL;
    pb_map_options options = {.struct_size = sizeof options, .timeout = -1};
    CHECK_STATUS(pb_map_bytes(NULL, NULL, 1, NULL, NULL, &results), PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("fn is NULL");
    CHECK_STATUS(pb_map_bytes(echo, NULL, 1, NULL, NULL, NULL), PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("results is NULL");
    CHECK_STATUS(pb_map_bytes(echo, NULL, 1, NULL, &options, &results), PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("timeout");
    CHECK_STATUS(pb_map_bytes(echo, NULL, SIZE_MAX / 2, NULL, NULL, &results), PB_ERR_OUT_OF_MEMORY);
    CHECK(results == NULL);
    pb_bytes out;
    CHECK_STATUS(pb_results_get(NULL, 0, &out), PB_ERR_INVALID_ARGUMENT);
    CHECK_OK(pb_map_bytes(echo, NULL, 3, NULL, NULL, &results));
    CHECK_STATUS(pb_results_get(results, 0, NULL), PB_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(pb_results_get(results, 3, &out), PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("had 3 items");
    pb_results_free(results);
    pb_results_free(NULL);
}

static int32_t write_wrongly(void *ctx, size_t index, const void *input, size_t size, pb_output *output) {
    (void)ctx, (void)index, (void)input, (void)size;
    CHECK_STATUS(pb_output_write(NULL, "x", 1), PB_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(pb_output_write(output, NULL, 1), PB_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(pb_output_write(output, "x", SIZE_MAX), PB_ERR_INVALID_ARGUMENT);
    CHECK_OK(pb_output_write(output, NULL, 0));
    CHECK_OK(pb_output_write(output, "fine", 4));
    return 0;
}

static void check_text_of(const pb_results *results, size_t index, const char *text) {
    pb_bytes out;
    CHECK_OK(pb_results_get(results, index, &out));
    CHECK_INT(strlen(text), out.size);
    CHECK_INT(0, memcmp(out.data, text, out.size));
}

TEST(a_write_that_is_refused_writes_nothing) {
    pb_results *results = NULL;
    CHECK_OK(pb_map_bytes(write_wrongly, NULL, 1, NULL, NULL, &results));
    check_text_of(results, 0, "fine");
    pb_results_free(results);
}

/* The first pieces of an item that does not fit where it began move with it. */
static int32_t grow(void *ctx, size_t index, const void *input, size_t size, pb_output *output) {
    (void)ctx, (void)input, (void)size;
    for (uint32_t i = 0; i < index * 500; i++)
        if (pb_output_write(output, &i, sizeof i) != PB_OK)
            return 1;
    return 0;
}

TEST(an_item_that_is_written_in_small_pieces_lies_in_one) {
    static const char *const backends[] = {"sequential", "threading", "multiprocessing"};
    for (size_t b = 0; b < 3; b++) {
        pb_scope scope = use_backend(backends[b], 2);
        pb_results *results = NULL;
        CHECK_OK(pb_map_bytes(grow, NULL, N, NULL, NULL, &results));
        CHECK_OK(pb_pop_backend(scope));
        for (size_t i = 0; i < N; i++) {
            pb_bytes out;
            CHECK_OK(pb_results_get(results, i, &out));
            CHECK_INT(i * 500 * sizeof(uint32_t), out.size);
            for (uint32_t k = 0; k < i * 500; k += 77)
                CHECK_INT(0, memcmp((const char *)out.data + k * sizeof k, &k, sizeof k));
        }
        pb_results_free(results);
    }
}

/* ---- on worker processes ---- */

static int32_t die_at_5(void *ctx, size_t index, const void *input, size_t size, pb_output *output) {
    (void)input, (void)size;
    int *started = ctx;
    pb_output_write(output, "half of ", 8);
    if (index == 5 && raise_by_1(started) < 3)
        raise(SIGKILL);
    return pb_output_write(output, "a result", 8);
}

TEST(the_result_of_a_worker_that_died_is_that_of_the_next_try) {
    int *started = shared(sizeof *started);
    for (uint32_t retries = 0; retries < 3; retries += 2) {
        *started = 0;
        int32_t statuses[N];
        pb_map_options options = {.struct_size = sizeof options,
                                  .statuses = statuses,
                                  .retries = retries,
                                  .batch_size = 10,
                                  .flags = PB_COLLECT_ERRORS};
        pb_scope scope = use_backend("multiprocessing", 2);
        pb_results *results = NULL;
        const pb_status status = pb_map_bytes(die_at_5, started, N, NULL, &options, &results);
        CHECK_OK(pb_pop_backend(scope));
        CHECK_INT(retries == 0 ? PB_ERR_TASK_FAILED : PB_OK, status);
        for (size_t i = 0; i < N; i++) {
            pb_bytes out;
            if (retries == 0 && i == 5)
                CHECK_STATUS(pb_results_get(results, i, &out), PB_ERR_TASK_FAILED);
            else
                check_text_of(results, i, "half of a result");
        }
        pb_results_free(results);
    }
    pb_free_shared(started);
    check_it_works();
}

/* Nothing of an earlier map shows, though the memory is used again. */
static int32_t some_write(void *ctx, size_t index, const void *input, size_t size, pb_output *output) {
    (void)input, (void)size;
    if (index % 2 == (size_t) * (const int *)ctx)
        _exit(1);
    return pb_output_write(output, &index, sizeof index);
}

TEST(what_an_earlier_map_left_is_no_result) {
    for (int odd = 0; odd < 2; odd++) {
        pb_map_options options = {.struct_size = sizeof options, .flags = PB_COLLECT_ERRORS};
        pb_scope scope = use_backend("multiprocessing", 2);
        pb_results *results = NULL;
        CHECK_STATUS(pb_map_bytes(some_write, &odd, N, NULL, &options, &results), PB_ERR_TASK_FAILED);
        CHECK_OK(pb_pop_backend(scope));
        for (size_t i = 0; i < N; i++) {
            pb_bytes out;
            const pb_status expected = i % 2 == (size_t)odd ? PB_ERR_TASK_FAILED : PB_OK;
            CHECK_INT(expected, pb_results_get(results, i, &out));
        }
        pb_results_free(results);
    }
}

static int32_t write_without_memory(void *ctx, size_t index, const void *input, size_t size,
                                    pb_output *output) {
    static char block[64 << 20];
    struct rlimit before;
    (void)ctx, (void)index, (void)input, (void)size;
    /* Not for the result; but for memcheck, which would end the process. */
    if (!leave_room(sizeof block / 4, &before))
        return 1;
    pb_output_write(output, block, sizeof block);
    return 0; /* as if nothing had happened */
}

TEST(a_result_that_is_not_whole_is_an_error_whatever_the_task_returns) {
    pb_scope scope = use_backend("multiprocessing", 1);
    pb_results *results = NULL;
    CHECK_STATUS(pb_map_bytes(write_without_memory, NULL, 1, NULL, NULL, &results), PB_ERR_TASK_FAILED);
    CHECK_TEXT("not whole");
    CHECK_INT(PB_ERR_OUT_OF_MEMORY, last_info().task_code);
    CHECK_OK(pb_pop_backend(scope));
    CHECK(results == NULL);
}

int main(void) {
    RUN(bad_arguments_are_told);
    RUN(a_write_that_is_refused_writes_nothing);
    RUN(an_item_that_is_written_in_small_pieces_lies_in_one);
    RUN(the_result_of_a_worker_that_died_is_that_of_the_next_try);
    RUN(what_an_earlier_map_left_is_no_result);
    RUN(a_result_that_is_not_whole_is_an_error_whatever_the_task_returns);
    CHECK_OK(pb_shutdown());
    return check_result();
}
