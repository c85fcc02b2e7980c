/* Which failure is the map's, where the chunks of a map run side by side in one worker: the one that is a
 * failure of its own, whichever reply comes first, with its text. */
#include "fake_backend.h"

#include <sched.h>

enum { N = 2 };

static int second_runs, first_reply;

/* Item 0 fails while item 1 runs, and thereby stops the map; item 1 fails then. */
static int32_t fail_in_turn(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)input, (void)output;
    if (index == 0) {
        while (!__atomic_load_n(&second_runs, __ATOMIC_ACQUIRE))
            sched_yield();
        pb_task_fail("the cause");
        return 1;
    }
    __atomic_store_n(&second_runs, 1, __ATOMIC_RELEASE);
    while (!pb_cancelled())
        sched_yield();
    pb_task_fail("was asked to end");
    return 2;
}

struct part {
    pb_chunk chunk;
    pb_bytes message;
    pb_results *results;
    pthread_t thread;
};

static void *work(void *arg) {
    struct part *part = arg;
    CHECK_OK(pb_worker_run(part->message.data, part->message.size, &part->results));
    return arg;
}

static void begin(struct part *part, pb_job *job) {
    CHECK_OK(pb_job_claim(job, &part->chunk));
    CHECK_OK(pb_job_encode(job, &part->chunk, &part->message));
    CHECK_INT(0, pthread_create(&part->thread, NULL, work, part));
}

static void end(struct part *part, pb_job *job) {
    pb_bytes reply;
    CHECK_INT(0, pthread_join(part->thread, NULL));
    CHECK_OK(pb_results_get(part->results, 0, &reply));
    CHECK_OK(pb_job_complete(job, &part->chunk, reply.data, reply.size));
    pb_results_free(part->results);
}

static pb_status run_both(struct fake *fake, pb_job *job) {
    (void)fake;
    struct part parts[N];
    for (int i = 0; i < N; ++i)
        begin(&parts[i], job);
    end(&parts[first_reply], job);
    end(&parts[1 - first_reply], job);
    return PB_OK;
}

static pb_status map_with(pb_status (*run)(struct fake *, pb_job *)) {
    struct fake fake = FAKE;
    fake.run = run;
    fake_register(&fake);
    const pb_scope scope = fake_push(2);
    const pb_map_options options = {.struct_size = sizeof options, .batch_size = 1};
    second_runs = 0;
    const pb_status status = pb_parallel_map(fail_in_turn, NULL, N, NULL, 0, NULL, 0, &options);
    fake_end(scope);
    return status;
}

TEST(the_cause_is_the_maps_error_whichever_reply_comes_first) {
    for (first_reply = 0; first_reply < N; ++first_reply) {
        CHECK_STATUS(map_with(run_both), PB_ERR_TASK_FAILED);
        CHECK_TEXT("item 0 failed with code 1: the cause");
    }
}

/* The backend's own doing: it asks its workers to stop, though the map goes on. */
static pb_status run_and_cancel(struct fake *fake, pb_job *job) {
    (void)fake;
    struct part other, part;
    CHECK_OK(pb_job_claim(job, &other.chunk));
    begin(&part, job);
    while (!__atomic_load_n(&second_runs, __ATOMIC_ACQUIRE))
        sched_yield();
    pb_worker_cancel();
    end(&part, job);
    return PB_OK;
}

TEST(where_there_is_no_other_cause_it_is_the_item_that_was_asked_to_end) {
    CHECK_STATUS(map_with(run_and_cancel), PB_ERR_TASK_FAILED);
    CHECK_TEXT("item 1 failed with code 2: was asked to end");
}

int main(void) {
    RUN(the_cause_is_the_maps_error_whichever_reply_comes_first);
    RUN(where_there_is_no_other_cause_it_is_the_item_that_was_asked_to_end);
    CHECK_OK(pb_shutdown());
    return check_result();
}
