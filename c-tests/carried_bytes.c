/* Results of a map of bytes that were made elsewhere, and for which there is no memory here. */
#include "address_space.h"
#include "fake_backend.h"

enum { LARGE = 64 << 20 };

static int32_t make_large(void *ctx, size_t index, const void *input, size_t size, pb_output *output) {
    (void)ctx, (void)index, (void)input, (void)size;
    static char zeroes[1 << 20];
    for (size_t written = 0; written < LARGE; written += sizeof zeroes)
        if (pb_output_write(output, zeroes, sizeof zeroes) != PB_OK)
            return 1;
    return 0;
}

/* Takes the only chunk's result with room for little more. */
static pb_status complete_without_memory(struct fake *fake, pb_job *job) {
    (void)fake;
    pb_chunk chunk;
    pb_bytes message, reply;
    pb_results *results = NULL;
    struct rlimit old;
    CHECK_OK(pb_job_claim(job, &chunk));
    CHECK_OK(pb_job_encode(job, &chunk, &message));
    CHECK_OK(pb_worker_run(message.data, message.size, &results));
    CHECK_OK(pb_results_get(results, 0, &reply));
    CHECK(leave_room(LARGE / 4, &old));
    const pb_status status = pb_job_complete(job, &chunk, reply.data, reply.size);
    CHECK_INT(0, setrlimit(RLIMIT_AS, &old));
    CHECK_OK(status);
    pb_results_free(results);
    return PB_OK;
}

TEST(a_result_that_there_is_no_memory_for_is_an_error_of_the_map) {
    struct fake fake = FAKE;
    fake.run = complete_without_memory;
    fake_register(&fake);
    const pb_scope scope = fake_push(2);
    pb_results *results = NULL;
    CHECK_STATUS(pb_map_bytes(make_large, NULL, 1, NULL, NULL, &results), PB_ERR_OUT_OF_MEMORY);
    CHECK_TEXT("the result of item 0 cannot be kept");
    CHECK(results == NULL);
    fake_end(scope);
}

int main(void) {
    RUN(a_result_that_there_is_no_memory_for_is_an_error_of_the_map);
    CHECK_OK(pb_shutdown());
    return check_result();
}
