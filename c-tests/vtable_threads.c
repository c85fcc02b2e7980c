/* A backend's threads and a job: who may claim and run, when, and how many at once. */
#include "fake_backend.h"
#include "gate.h"

/* ---- claims outside run ---- */

static void check_takes_no_claims(pb_job *job) {
    pb_chunk chunk = {0, 1};
    CHECK_STATUS(pb_job_claim(job, &chunk), PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("takes no claims");
    CHECK_STATUS(pb_job_run(job, &chunk), PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("takes no claims");
}

TEST(only_a_backend_can_claim) {
    int32_t count = 0;
    pb_job *job = NULL;
    CHECK_OK(pb_submit_map(count_task, &count, 100, NULL, 0, NULL, 0, NULL, &job));
    check_takes_no_claims(job); /* whether or not "threading" works on it now */
    CHECK_OK(pb_job_wait(job, -1));
    check_takes_no_claims(job);
    CHECK_INT(100, count);
    pb_job_free(job);
}

struct straggler {
    pb_job *job;
    struct gate returned;
};
static struct straggler straggler;
static pthread_t straggler_thread;

static void *claim_too_late(void *arg) {
    struct straggler *s = arg;
    gate_wait(&s->returned);
    check_takes_no_claims(s->job);
    return NULL;
}

static pb_status run_and_leave_a_thread(struct fake *fake, pb_job *job) {
    straggler.job = job;
    CHECK(pthread_create(&straggler_thread, NULL, claim_too_late, &straggler) == 0);
    return fake_run_all(fake, job);
}

TEST(a_thread_cannot_claim_after_run_has_returned) {
    struct fake fake = FAKE;
    struct straggler fresh = {NULL, GATE_CLOSED};
    int32_t count = 0;
    pb_job *job = NULL;
    straggler = fresh;
    fake.run = run_and_leave_a_thread;
    fake_register(&fake);
    const pb_scope scope = fake_push(2);
    /* Submitted, so that the job is there until it is freed. */
    CHECK_OK(pb_submit_map(count_task, &count, 20, NULL, 0, NULL, 0, NULL, &job));
    CHECK_OK(pb_job_wait(job, -1));
    CHECK(straggler.job == job);
    gate_open(&straggler.returned);
    pthread_join(straggler_thread, NULL);
    CHECK_INT(20, count);
    pb_job_free(job);
    fake_end(scope);
}

/* ---- a run that returns while a thread of its own is in a task ---- */

struct stay {
    struct gate inside, leave;
    int32_t count;
};
static pb_job *stay_job;
static pthread_t stay_thread;

static int32_t stay_in_task(void *ctx, size_t index, const void *input, void *output) {
    struct stay *stay = ctx;
    (void)index, (void)input, (void)output;
    gate_open(&stay->inside);
    gate_wait(&stay->leave);
    stay->count += 1;
    return 0;
}

static void *run_one_chunk(void *arg) {
    pb_chunk chunk;
    CHECK_OK(pb_job_claim(stay_job, &chunk));
    CHECK_OK(pb_job_run(stay_job, &chunk));
    return arg;
}

static struct stay stay;

static pb_status run_without_waiting(struct fake *fake, pb_job *job) {
    (void)fake;
    stay_job = job;
    CHECK(pthread_create(&stay_thread, NULL, run_one_chunk, NULL) == 0);
    gate_wait(&stay.inside);
    return PB_OK;
}

TEST(the_map_waits_for_chunks_that_run_when_run_returns) {
    struct fake fake = FAKE;
    struct stay fresh = {GATE_CLOSED, GATE_CLOSED, 0};
    pb_job *job = NULL;
    stay = fresh;
    fake.run = run_without_waiting;
    fake_register(&fake);
    const pb_scope scope = fake_push(2);
    CHECK_OK(pb_submit_map(stay_in_task, &stay, 1, NULL, 0, NULL, 0, NULL, &job));
    gate_wait(&stay.inside);
    CHECK_STATUS(pb_job_wait(job, 0.05), PB_PENDING);
    gate_open(&stay.leave);
    CHECK_OK(pb_job_wait(job, -1));
    CHECK_INT(1, stay.count);
    pthread_join(stay_thread, NULL);
    pb_job_free(job);
    fake_end(scope);
}

/* ---- more threads than the job has workers ---- */

enum { WORKERS = 2, ITEMS = 12 };

static struct crowd { pthread_barrier_t all_inside, go_on; } crowd;

/* The tasks of the first WORKERS items meet there, so that all workers are in a task at once. */
static int32_t meet(void *ctx, size_t index, const void *input, void *output) {
    (void)input, (void)output;
    if (index < WORKERS) {
        pthread_barrier_wait(&crowd.all_inside);
        pthread_barrier_wait(&crowd.go_on);
    }
    return count_task(ctx, index, NULL, NULL);
}

static void *run_first_chunk(void *job) {
    pb_chunk chunk;
    CHECK_OK(pb_job_claim(job, &chunk));
    CHECK_OK(pb_job_run(job, &chunk));
    return NULL;
}

static pb_status run_crowd(struct fake *fake, pb_job *job) {
    pthread_t threads[WORKERS];
    pb_chunk chunk;
    for (int i = 0; i < WORKERS; ++i)
        CHECK(pthread_create(&threads[i], NULL, run_first_chunk, job) == 0);
    pthread_barrier_wait(&crowd.all_inside);
    /* One thread more than workers: it is refused, again and again, and keeps its chunk. */
    CHECK_OK(pb_job_claim(job, &chunk));
    for (int i = 0; i < 3; ++i) {
        CHECK_STATUS(pb_job_run(job, &chunk), PB_ERR_INVALID_ARGUMENT);
        CHECK_TEXT("2 threads run chunks");
        CHECK_TEXT("later");
    }
    pthread_barrier_wait(&crowd.go_on);
    for (int i = 0; i < WORKERS; ++i)
        pthread_join(threads[i], NULL);
    CHECK_OK(pb_job_run(job, &chunk));
    return fake_run_all(fake, job);
}

TEST(a_job_is_run_by_no_more_threads_than_it_has_workers) {
    struct fake fake = FAKE;
    int32_t count = 0;
    pb_map_options options = {.struct_size = sizeof options};
    options.batch_size = 1;
    pthread_barrier_init(&crowd.all_inside, NULL, WORKERS + 1);
    pthread_barrier_init(&crowd.go_on, NULL, WORKERS + 1);
    fake.run = run_crowd;
    fake_register(&fake);
    const pb_scope scope = fake_push(WORKERS);
    CHECK_OK(pb_parallel_map(meet, &count, ITEMS, NULL, 0, NULL, 0, &options));
    CHECK_INT(ITEMS, count);
    fake_end(scope);
    pthread_barrier_destroy(&crowd.all_inside);
    pthread_barrier_destroy(&crowd.go_on);
}

/* ---- failure from any thread ---- */

static void *fail_from_here(void *job) {
    CHECK_OK(pb_job_fail(job, PB_ERR_WORKER_LOST, "helper 1 is gone"));
    return NULL;
}

static pb_status run_until_failed(struct fake *fake, pb_job *job) {
    pthread_t thread;
    (void)fake;
    CHECK(pthread_create(&thread, NULL, fail_from_here, job) == 0);
    pthread_join(thread, NULL);
    return fake_run_all(fake, job);
}

TEST(any_thread_of_a_backend_can_fail_the_job) {
    struct fake fake = FAKE;
    int32_t count = 0;
    fake.run = run_until_failed;
    fake_register(&fake);
    const pb_scope scope = fake_push(2);
    CHECK_STATUS(count_map(10, &count), PB_ERR_WORKER_LOST);
    CHECK_TEXT("helper 1 is gone");
    CHECK_INT(0, count);
    fake_end(scope);
}

int main(void) {
    RUN(only_a_backend_can_claim);
    RUN(a_thread_cannot_claim_after_run_has_returned);
    RUN(the_map_waits_for_chunks_that_run_when_run_returns);
    RUN(a_job_is_run_by_no_more_threads_than_it_has_workers);
    RUN(any_thread_of_a_backend_can_fail_the_job);
    CHECK_OK(pb_shutdown());
    return check_result();
}
