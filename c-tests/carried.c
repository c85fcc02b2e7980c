/* What a carrier of messages has besides the message itself: ctx that is brought once, the call's number, a
 * cancel of one call, libraries that lie elsewhere. The carrier here goes no further than this process. */
#include "copy_file.h"
#include "fake_backend.h"

#include <dlfcn.h>
#include <sched.h>
#include <unistd.h>

enum { N = 12 };

/* Runs every chunk as a worker would, and completes it. */
static pb_status carry_all(pb_job *job) {
    pb_chunk chunk;
    pb_status status;
    while ((status = pb_job_claim(job, &chunk)) == PB_OK) {
        pb_bytes message, reply;
        pb_results *results = NULL;
        if ((status = pb_job_encode(job, &chunk, &message)) != PB_OK)
            return pb_backend_fail(status, pb_last_error());
        CHECK_OK(pb_worker_run(message.data, message.size, &results));
        CHECK_OK(pb_results_get(results, 0, &reply));
        CHECK_OK(pb_job_complete(job, &chunk, reply.data, reply.size));
        pb_results_free(results);
    }
    return PB_OK;
}

static pb_status map_with(pb_status (*run)(struct fake *, pb_job *), pb_task_fn task, const void *ctx,
                          size_t ctx_size, int64_t *outputs) {
    struct fake fake = FAKE;
    fake.run = run;
    fake_register(&fake);
    const pb_scope scope = fake_push(2);
    pb_map_options options = {.struct_size = sizeof options, .batch_size = 3, .ctx_size = ctx_size};
    const pb_status status =
        pb_parallel_map(task, (void *)(uintptr_t)ctx, N, NULL, 0, outputs, sizeof *outputs, &options);
    fake_end(scope);
    return status;
}

static char folder[] = "/tmp/pb-carried-XXXXXX";
static char path[64];
static void *library;

static pb_task_fn find(const char *name) {
    pb_task_fn function = NULL;
    void *symbol = dlsym(library, name);
    memcpy(&function, &symbol, sizeof function);
    CHECK(function != NULL);
    return function;
}

static int64_t table[1000];

static int32_t look_up(void *ctx, size_t index, const void *input, void *output) {
    (void)input;
    *(int64_t *)output = ((const int64_t *)ctx)[index];
    return 0;
}

static pb_status run_with_ctx_apart(struct fake *fake, pb_job *job) {
    (void)fake;
    pb_bytes ctx, message;
    CHECK_OK(pb_job_detach_ctx(job, &ctx));
    CHECK_INT(sizeof table, ctx.size);
    CHECK_OK(pb_worker_put_ctx(pb_job_call(job), ctx.data, ctx.size));
    pb_chunk chunk;
    CHECK_OK(pb_job_claim(job, &chunk));
    CHECK_OK(pb_job_encode(job, &chunk, &message));
    CHECK(message.size < sizeof table); /* it is not in there */
    CHECK_OK(pb_job_return(job, &chunk, "was only looked at"));
    const pb_status status = carry_all(job);
    pb_worker_drop_ctx(pb_job_call(job));
    return status;
}

TEST(a_detached_ctx_is_brought_once) {
    for (int64_t i = 0; i < 1000; ++i)
        table[i] = 7 * i;
    int64_t outputs[N] = {0};
    struct fake fake = FAKE;
    fake.run = run_with_ctx_apart;
    fake_register(&fake);
    const pb_scope scope = fake_push(2);
    const pb_map_options options = {
        .struct_size = sizeof options, .batch_size = 3, .ctx_size = sizeof table, .retries = 1};
    CHECK_OK(pb_parallel_map(look_up, table, N, NULL, 0, outputs, sizeof *outputs, &options));
    fake_end(scope);
    for (int64_t i = 0; i < N; ++i)
        CHECK_INT(7 * i, outputs[i]);
}

static pb_status run_and_forget_ctx(struct fake *fake, pb_job *job) {
    (void)fake;
    pb_bytes ctx;
    CHECK_OK(pb_job_detach_ctx(job, &ctx));
    return carry_all(job);
}

TEST(a_chunk_whose_ctx_nobody_brought_says_so) {
    int64_t outputs[N];
    CHECK_STATUS(map_with(run_and_forget_ctx, look_up, table, sizeof table, outputs),
                 PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("pb_worker_put_ctx first");
}

static pb_status run_with_null(struct fake *fake, pb_job *job) {
    (void)fake;
    pb_bytes ctx = {.data = job, .size = 1};
    CHECK_OK(pb_job_detach_ctx(job, &ctx));
    CHECK(ctx.data == NULL && ctx.size == 0);
    return carry_all(job);
}

static int32_t has_no_ctx(void *ctx, size_t index, const void *input, void *output) {
    (void)index, (void)input;
    *(int64_t *)output = ctx == NULL;
    return 0;
}

static int32_t my_worker(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input;
    *(int64_t *)output = pb_worker_index();
    return 0;
}

/* What a worker would answer to a message, taken for its chunk. */
static void complete_here(pb_job *job, const pb_chunk *chunk, pb_bytes message) {
    pb_results *results = NULL;
    pb_bytes reply;
    CHECK_OK(pb_worker_run(message.data, message.size, &results));
    CHECK_OK(pb_results_get(results, 0, &reply));
    CHECK_OK(pb_job_complete(job, chunk, reply.data, reply.size));
    pb_results_free(results);
}

/* All chunks are on their way at once, in turn for worker 0 and 1. */
static pb_status run_for_numbers(struct fake *fake, pb_job *job) {
    (void)fake;
    pb_chunk chunks[N];
    pb_bytes messages[N], reply;
    int32_t count = 0;
    for (; pb_job_claim(job, &chunks[count]) == PB_OK; ++count)
        CHECK_OK(pb_job_encode_for(job, &chunks[count], count % 2, &messages[count]));
    CHECK_STATUS(pb_job_encode_for(job, &chunks[0], pb_job_n_jobs(job), &reply), PB_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(pb_job_encode_for(job, &chunks[0], -1, &reply), PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("worker -1");
    for (int32_t i = count - 1; i >= 0; --i) {
        complete_here(job, &chunks[i], messages[i]);
    }
    return PB_OK;
}

TEST(a_backend_may_say_which_worker_a_chunk_is_for) {
    int64_t outputs[N];
    CHECK_OK(map_with(run_for_numbers, my_worker, NULL, 0, outputs));
    for (int i = 0; i < N; ++i)
        CHECK_INT(i / 3 % 2, outputs[i]); /* three items a chunk */
}

static int32_t fail_once(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)input;
    *(int64_t *)output = 1;
    return index == 0 ? 5 : 0;
}

/* The first chunk fails, the second is there already, as if it had waited there. */
static pb_status run_two_after_another(struct fake *fake, pb_job *job) {
    (void)fake;
    pb_chunk chunks[2];
    pb_bytes messages[2];
    for (int i = 0; i < 2; ++i) {
        CHECK_OK(pb_job_claim(job, &chunks[i]));
        CHECK_OK(pb_job_encode(job, &chunks[i], &messages[i]));
    }
    for (int i = 0; i < 2; ++i) {
        complete_here(job, &chunks[i], messages[i]);
    }
    return PB_OK;
}

TEST(a_chunk_behind_one_that_ended_the_map_does_not_begin) {
    int64_t outputs[N] = {0};
    CHECK_STATUS(map_with(run_two_after_another, fail_once, NULL, 0, outputs), PB_ERR_TASK_FAILED);
    for (int i = 3; i < N; ++i)
        CHECK_INT(0, outputs[i]);
}

TEST(no_ctx_needs_not_be_brought) {
    int64_t outputs[N] = {0};
    CHECK_OK(map_with(run_with_null, has_no_ctx, NULL, 0, outputs));
    CHECK_INT(1, outputs[N - 1]);
}

/* In one process caller and worker share this. */
static uint64_t first_call, own_call;
static int64_t begun;

static int32_t cancel_first_call(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    ++begun;
    pb_worker_cancel_call(first_call);
    CHECK_INT(own_call == first_call, pb_cancelled());
    return 0;
}

static pb_status run_one_chunk(struct fake *fake, pb_job *job) {
    (void)fake;
    own_call = pb_job_call(job);
    CHECK(own_call != 0);
    CHECK(own_call == pb_job_call(job));
    if (first_call == 0)
        first_call = own_call;
    pb_chunk chunk;
    pb_bytes message, reply;
    pb_results *results = NULL;
    CHECK_OK(pb_job_claim(job, &chunk));
    CHECK_OK(pb_job_encode(job, &chunk, &message));
    CHECK_OK(pb_worker_run(message.data, message.size, &results));
    CHECK_OK(pb_results_get(results, 0, &reply));
    CHECK_OK(pb_job_complete(job, &chunk, reply.data, reply.size));
    pb_results_free(results);
    return pb_backend_fail(PB_ERR_IO, "one chunk is enough");
}

TEST(a_cancel_is_for_one_call) {
    int64_t outputs[N];
    CHECK_STATUS(map_with(run_one_chunk, cancel_first_call, NULL, 0, outputs), PB_ERR_IO);
    CHECK_INT(1, begun); /* of three: the first item ended its chunk */
    begun = 0;
    CHECK_STATUS(map_with(run_one_chunk, cancel_first_call, NULL, 0, outputs), PB_ERR_IO);
    CHECK(own_call != first_call);
    CHECK_INT(3, begun);
}

/* A thread that completes a chunk, and hears of progress meanwhile. */
static struct completion {
    pb_job *job;
    pb_chunk chunk;
    pb_bytes message;
    pthread_t thread;
    int begun, ended;
} completion;

static int32_t stay_until_the_job_is_closed(void *user, size_t done, size_t failed, size_t total,
                                            double elapsed) {
    (void)user, (void)done, (void)failed, (void)total, (void)elapsed;
    pb_chunk chunk;
    if (__atomic_exchange_n(&completion.begun, 1, __ATOMIC_ACQ_REL))
        return 0; /* the map's last call, by its own thread */
    while (pb_job_claim(completion.job, &chunk) != PB_ERR_INVALID_ARGUMENT)
        sched_yield();
    usleep(20000); /* long enough for a map that does not wait to return */
    __atomic_store_n(&completion.ended, 1, __ATOMIC_RELEASE);
    return 0;
}

static void *complete_there(void *arg) {
    complete_here(completion.job, &completion.chunk, completion.message);
    return arg;
}

static pb_status run_and_return_early(struct fake *fake, pb_job *job) {
    (void)fake;
    completion.job = job;
    CHECK_OK(pb_job_claim(job, &completion.chunk));
    CHECK_OK(pb_job_encode(job, &completion.chunk, &completion.message));
    usleep(60000); /* so that progress is due */
    CHECK_INT(0, pthread_create(&completion.thread, NULL, complete_there, NULL));
    while (!__atomic_load_n(&completion.begun, __ATOMIC_ACQUIRE))
        sched_yield();
    return pb_backend_fail(PB_ERR_IO, "no patience");
}

TEST(a_map_waits_for_whoever_completes_a_chunk_of_it) {
    struct fake fake = FAKE;
    fake.run = run_and_return_early;
    fake_register(&fake);
    const pb_scope scope = fake_push(2);
    int64_t outputs[N];
    const pb_map_options options = {
        .struct_size = sizeof options, .batch_size = 3, .progress = stay_until_the_job_is_closed};
    CHECK_STATUS(pb_parallel_map(my_worker, NULL, N, NULL, 0, outputs, sizeof *outputs, &options), PB_ERR_IO);
    CHECK_INT(1, __atomic_load_n(&completion.ended, __ATOMIC_ACQUIRE));
    CHECK_INT(0, pthread_join(completion.thread, NULL));
    fake_end(scope);
}

static int32_t own_share(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input;
    *(int64_t *)output = pb_effective_n_jobs(-1);
    return 0;
}

static pb_status run_simply(struct fake *fake, pb_job *job) {
    (void)fake;
    return carry_all(job);
}

TEST(a_worker_says_how_many_of_its_own_cpus_a_task_has) {
    int64_t outputs[N];
    CHECK_OK(map_with(run_simply, own_share, NULL, 0, outputs));
    const int64_t callers = outputs[0];
    CHECK_OK(pb_worker_set_cpus(7));
    CHECK_OK(map_with(run_simply, own_share, NULL, 0, outputs));
    CHECK_INT(7, outputs[0]);
    CHECK_OK(pb_worker_set_cpus(0));
    CHECK_OK(map_with(run_simply, own_share, NULL, 0, outputs));
    CHECK_INT(callers, outputs[0]);
    CHECK_STATUS(pb_worker_set_cpus(-1), PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("cpus is -1");
}

TEST(no_job_has_no_call) {
    CHECK_INT(0, pb_job_call(NULL));
    CHECK_TEXT("job is NULL");
}

TEST(a_task_is_found_in_a_copy_of_its_library) {
    int64_t outputs[N];
    CHECK_OK(pb_worker_load(path));
    CHECK_OK(map_with(run_simply, find("copy_that_runs"), NULL, 0, outputs));
    void *copy = dlopen(path, RTLD_LAZY | RTLD_NOLOAD);
    CHECK(copy != NULL);
    CHECK_INT((int64_t)(intptr_t)dlsym(copy, "static_task"), outputs[0]);
    CHECK(dlsym(library, "static_task") != dlsym(copy, "static_task"));
    dlclose(copy);
}

TEST(a_library_that_cannot_be_loaded_is_named_with_the_loaders_text) {
    CHECK_STATUS(pb_worker_load("/nowhere/libtask.so"), PB_ERR_TASK_NOT_PORTABLE);
    CHECK_TEXT("/nowhere/libtask.so");
    CHECK_TEXT("No such file");
    CHECK_STATUS(pb_worker_load(NULL), PB_ERR_INVALID_ARGUMENT);
}

int main(void) {
    CHECK(mkdtemp(folder) != NULL);
    snprintf(path, sizeof path, "%s/libcopy.so", folder);
    copy_file(MODULE_DIR "/tasks_first.so", path);
    library = dlopen(MODULE_DIR "/tasks_first.so", RTLD_NOW);
    CHECK(library != NULL);
    RUN(a_detached_ctx_is_brought_once);
    RUN(a_chunk_whose_ctx_nobody_brought_says_so);
    RUN(a_backend_may_say_which_worker_a_chunk_is_for);
    RUN(a_chunk_behind_one_that_ended_the_map_does_not_begin);
    RUN(no_ctx_needs_not_be_brought);
    RUN(a_cancel_is_for_one_call);
    RUN(a_map_waits_for_whoever_completes_a_chunk_of_it);
    RUN(a_worker_says_how_many_of_its_own_cpus_a_task_has);
    RUN(no_job_has_no_call);
    RUN(a_task_is_found_in_a_copy_of_its_library);
    RUN(a_library_that_cannot_be_loaded_is_named_with_the_loaders_text);
    unlink(path);
    rmdir(folder);
    CHECK_OK(pb_shutdown());
    return check_result();
}
