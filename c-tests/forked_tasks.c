/* Tasks of "multiprocessing" that do what one should not, or cannot elsewhere: each concerns its own worker
 * only. */
#include "forked.h"

#include <fcntl.h>
#include <sys/stat.h>

enum { N = 30 };

/* ---- what a task has around it ---- */

static int32_t state = 1;

static int32_t change_state(void *ctx, size_t index, const void *input, void *output) {
    int32_t *own = ctx;
    (void)input;
    state += 1;
    *own += (int32_t)index;
    *(int32_t *)output = (int32_t)getpid();
    return 0;
}

/* The function, ctx and all memory are the caller's, by copy: nothing needs a size or a name. */
TEST(a_task_has_copies_of_the_callers_memory) {
    int32_t own = 5, outputs[N];
    CHECK_OK(map_forked(2, change_state, &own, N, outputs, NULL));
    CHECK_INT(1, state);
    CHECK_INT(5, own);
    for (int i = 0; i < N; i++)
        CHECK(outputs[i] != getpid());
}

static int32_t reverse(void *ctx, size_t index, const void *input, void *output) {
    const unsigned char *in = input;
    const size_t size = *(const size_t *)ctx;
    (void)index;
    for (size_t i = 0; i < size; i++)
        ((unsigned char *)output)[i] = in[size - 1 - i];
    return 0;
}

static void check_reversed(size_t size, size_t n, unsigned char *in, unsigned char *out) {
    for (size_t i = 0; i < n * size; i++)
        in[i] = (unsigned char)(i * 7 + i / size);
    for (int round = 0; round < 2; round++) {
        memset(out, 0, n * size);
        pb_scope scope = use_backend("multiprocessing", 2);
        CHECK_OK(pb_parallel_map(reverse, &size, n, in, size, out, size, NULL));
        CHECK_OK(pb_pop_backend(scope));
        for (size_t k = 0; k < n; k++)
            for (size_t i = 0; i < size; i += 97)
                CHECK_INT(in[k * size + size - 1 - i], out[k * size + i]);
    }
}

TEST(large_outputs_come_back_whole_from_ordinary_and_from_shared_memory) {
    /* The last ones are so much that several threads fetch them. */
    const size_t sizes[] = {1, 4097, (2 << 20) + 1};
    for (size_t s = 0; s < 3; s++) {
        const size_t n = 8, bytes = n * sizes[s];
        unsigned char *in = malloc(bytes), *out = malloc(bytes), *block = shared(bytes);
        check_reversed(sizes[s], n, in, out);
        check_reversed(sizes[s], n, in, block);
        pb_free_shared(block);
        free(out);
        free(in);
    }
}

static int32_t write_then_wait(void *ctx, size_t index, const void *input, void *output) {
    (void)index, (void)input;
    store(output, 1);
    return wait_for(ctx, 1) ? 0 : 99;
}

/* What lies in a shared block is not copied: the caller sees it as it is written. */
TEST(outputs_in_a_shared_block_are_written_in_place) {
    int *block = shared(2 * sizeof *block);
    pb_job *job = NULL;
    pb_scope scope = use_backend("multiprocessing", 1);
    CHECK_OK(pb_submit_map(write_then_wait, &block[1], 1, NULL, 0, &block[0], sizeof *block, NULL, &job));
    CHECK_OK(pb_pop_backend(scope));
    CHECK(wait_for(&block[0], 1));
    CHECK_STATUS(pb_job_wait(job, 0), PB_PENDING);
    store(&block[1], 1);
    CHECK_OK(pb_job_wait(job, -1));
    pb_job_free(job);
    pb_free_shared(block);
}

static int32_t go_deeper(void *ctx, size_t index, const void *input, void *output) {
    int32_t *deepest = ctx, inner = 0;
    (void)index, (void)input;
    raise_by_1(deepest);
    const pb_status status = map_forked(1, go_deeper, ctx, 1, &inner, NULL);
    *(int32_t *)output = status == PB_OK ? inner : status;
    return 0;
}

TEST(processes_nested_without_end_are_refused) {
    int *deepest = shared(sizeof *deepest);
    int32_t status = 0;
    CHECK_OK(map_forked(1, go_deeper, deepest, 1, &status, NULL));
    CHECK_INT(PB_ERR_UNSUPPORTED, status);
    CHECK_INT(10, *deepest);
    pb_free_shared(deepest);
}

/* ---- stubborn tasks ---- */

static int32_t never_end(void *ctx, size_t index, const void *input, void *output) {
    for (volatile int forever = *(const size_t *)ctx == index; forever;) {
    }
    return square(ctx, index, input, output);
}

/* joblib: test_parallel.py::test_timeout_fail; there all results are lost, and a thread goes on for ever. */
TEST(a_task_without_end_is_killed_in_time_and_the_others_keep_their_results) {
    size_t stubborn = 4;
    int32_t outputs[N], statuses[N];
    pb_map_options options = {.struct_size = sizeof options,
                              .statuses = statuses,
                              .timeout = item_limit(),
                              .flags = PB_COLLECT_ERRORS};
    CHECK_STATUS(map_forked(2, never_end, &stubborn, N, outputs, &options), PB_ERR_TASK_FAILED);
    CHECK_TEXT("item 4 ran longer than the timeout");
    for (int i = 0; i < N; i++) {
        CHECK_INT(i == 4 ? PB_ERR_TIMEOUT : 0, statuses[i]);
        if (i != 4)
            CHECK_INT(i * i, outputs[i]);
    }
    options.flags = 0;
    CHECK_STATUS(map_forked(2, never_end, &stubborn, N, outputs, &options), PB_ERR_TIMEOUT);
    CHECK_INT(4, last_info().task_index);
    CHECK_INT(PB_ERR_TIMEOUT, statuses[4]);
    check_it_works();
}

static int32_t stop_oneself(void *ctx, size_t index, const void *input, void *output) {
    if (*(const size_t *)ctx == index)
        raise(SIGSTOP);
    return square(ctx, index, input, output);
}

TEST(a_worker_that_is_stopped_is_killed_when_its_time_is_up) {
    size_t stopped = 6;
    int32_t outputs[N], statuses[N];
    pb_map_options options = {.struct_size = sizeof options,
                              .statuses = statuses,
                              .timeout = item_limit(),
                              .flags = PB_COLLECT_ERRORS};
    CHECK_STATUS(map_forked(2, stop_oneself, &stopped, N, outputs, &options), PB_ERR_TASK_FAILED);
    for (int i = 0; i < N; i++)
        CHECK_INT(i == 6 ? PB_ERR_TIMEOUT : 0, statuses[i]);
    check_it_works();
}

static int32_t start_and_never_end(void *ctx, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    raise_by_1(ctx);
    for (volatile int forever = 1; forever;) {
    }
    return 0;
}

TEST(cancelling_ends_tasks_that_do_not_listen) {
    int *started = shared(sizeof *started);
    pb_job *job = NULL;
    pb_scope scope = use_backend("multiprocessing", 2);
    CHECK_OK(pb_submit_map(start_and_never_end, started, N, NULL, 0, NULL, 0, NULL, &job));
    CHECK_OK(pb_pop_backend(scope));
    CHECK(wait_for(started, 2));
    CHECK_OK(pb_job_cancel(job));
    CHECK_STATUS(pb_job_wait(job, -1), PB_ERR_CANCELLED);
    pb_job_free(job);
    CHECK_INT(2, *started);
    pb_free_shared(started);
    check_it_works();
}

/* ---- mischief ---- */

static int32_t close_all(void *ctx, size_t index, const void *input, void *output) {
    const char *path = ctx;
    if (index % 3 == 0) {
        for (int fd = 0; fd < 256; fd++)
            close(fd);
        /* Files of its own take the places of ours. */
        for (int i = 0; i < 64; i++)
            if (open(path, O_WRONLY | O_APPEND) < 0)
                return 1;
    }
    return square(NULL, index, input, output);
}

TEST(a_task_may_close_all_descriptors_and_nothing_is_written_into_its_own_files) {
    char path[] = "/tmp/pb-forked-XXXXXX";
    const int fd = mkstemp(path);
    CHECK(fd >= 0);
    int32_t outputs[N];
    pb_job *job = NULL;
    pb_scope scope = use_backend("multiprocessing", 2);
    for (int round = 0; round < 5; round++) {
        memset(outputs, 0xff, sizeof outputs);
        CHECK_OK(pb_submit_map(close_all, path, N, NULL, 0, outputs, sizeof *outputs, NULL, &job));
        size_t index = 0;
        for (size_t i = 0; i < N; i++) {
            CHECK_OK(pb_job_next(job, -1, &index));
            CHECK_INT(i * i, outputs[i]);
        }
        pb_job_free(job);
    }
    CHECK_OK(pb_pop_backend(scope));
    struct stat info;
    CHECK_INT(0, fstat(fd, &info));
    CHECK_INT(0, info.st_size);
    close(fd);
    unlink(path);
    check_it_works();
}

static int32_t fork_in_task(void *ctx, size_t index, const void *input, void *output) {
    int *count = ctx;
    if (index % 4 == 0)
        fork(); /* the child returns from the task like its parent */
    raise_by_1(&count[index]);
    return square(NULL, index, input, output);
}

TEST(a_task_that_forks_and_returns_twice_counts_once) {
    int *count = shared(N * sizeof *count);
    int32_t outputs[N], statuses[N];
    pb_map_options options = {.struct_size = sizeof options, .statuses = statuses};
    CHECK_OK(map_forked(2, fork_in_task, count, N, outputs, &options));
    for (int i = 0; i < N; i++) {
        CHECK_INT(i * i, outputs[i]);
        CHECK_INT(0, statuses[i]);
        /* The copy goes no further than its task, which it may still be in. */
        CHECK(count[i] == 1 || (i % 4 == 0 && wait_for(&count[i], 2) && count[i] == 2));
    }
    pb_free_shared(count);
    check_it_works();
}

static int32_t change_directory(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx;
    umask(0777);
    return chdir("/") == 0 ? square(NULL, index, input, output) : 1;
}

TEST(a_task_may_change_its_directory) {
    char before[4096], after[4096];
    CHECK(getcwd(before, sizeof before) != NULL);
    int32_t outputs[N];
    CHECK_OK(map_forked(2, change_directory, NULL, N, outputs, NULL));
    CHECK(getcwd(after, sizeof after) != NULL);
    CHECK_STR(before, after);
}

static void *sleep_for_ever(void *unused) {
    for (;;)
        pause();
    return unused;
}

static int32_t start_a_thread(void *ctx, size_t index, const void *input, void *output) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, sleep_for_ever, NULL) != 0)
        return 1;
    return square(ctx, index, input, output);
}

TEST(a_task_may_leave_threads_behind) {
    int32_t outputs[N];
    CHECK_OK(map_forked(2, start_a_thread, NULL, N, outputs, NULL));
    for (int i = 0; i < N; i++)
        CHECK_INT(i * i, outputs[i]);
    check_it_works();
}

static int32_t scribble(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)input;
    *(int32_t *)output = 0;
    return (int32_t)index + 1;
}

TEST(every_item_may_fail_with_a_text_of_any_length) {
    enum { MANY = 5000 };
    static int32_t statuses[MANY], outputs[MANY];
    pb_map_options options = {
        .struct_size = sizeof options, .statuses = statuses, .flags = PB_COLLECT_ERRORS};
    CHECK_STATUS(map_forked(2, scribble, NULL, MANY, outputs, &options), PB_ERR_TASK_FAILED);
    for (int i = 0; i < MANY; i++)
        CHECK_INT(i + 1, statuses[i]);
}

typedef struct pair {
    int begun;
    int culprit;
} pair;

static int32_t one_fails_the_other_follows(void *ctx, size_t index, const void *input, void *output) {
    (void)input, (void)output;
    pair *p = ctx;
    raise_by_1(&p->begun);
    if ((int)index == p->culprit)
        return wait_for(&p->begun, 2) ? 3 : 4;
    return wait_cancelled() ? 5 : 6;
}

/* Whichever of the two the parent hears first. */
TEST(the_error_is_of_the_item_that_failed_by_itself) {
    void *block = NULL;
    CHECK_OK(pb_alloc_shared(sizeof(pair), &block));
    pair *p = block;
    const pb_map_options options = {.struct_size = sizeof options, .batch_size = 1};
    for (size_t round = 0; round < rounds(100); round++) {
        *p = (pair){.culprit = (int)(round % 2)};
        int32_t outputs[2];
        CHECK_STATUS(map_forked(2, one_fails_the_other_follows, p, 2, outputs, &options), PB_ERR_TASK_FAILED);
        CHECK_INT(p->culprit, last_info().task_index);
        CHECK_INT(3, last_info().task_code);
    }
    pb_free_shared(block);
}

static int32_t fail_at_1000(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)input, (void)output;
    return index == 1000 ? 1 : 0;
}

TEST(a_map_may_be_far_longer_than_anyone_lets_it_run) {
    pb_scope scope = use_backend("multiprocessing", 2);
    CHECK_STATUS(pb_parallel_map(fail_at_1000, NULL, (size_t)1 << 60, NULL, 0, NULL, 0, NULL),
                 PB_ERR_TASK_FAILED);
    CHECK_INT(1000, last_info().task_index);
    CHECK_OK(pb_pop_backend(scope));
}

int main(void) {
    RUN(a_task_has_copies_of_the_callers_memory);
    RUN(large_outputs_come_back_whole_from_ordinary_and_from_shared_memory);
    RUN(outputs_in_a_shared_block_are_written_in_place);
    RUN(processes_nested_without_end_are_refused);
    RUN(a_task_without_end_is_killed_in_time_and_the_others_keep_their_results);
    RUN(a_worker_that_is_stopped_is_killed_when_its_time_is_up);
    RUN(cancelling_ends_tasks_that_do_not_listen);
    RUN(a_task_may_close_all_descriptors_and_nothing_is_written_into_its_own_files);
    RUN(a_task_that_forks_and_returns_twice_counts_once);
    RUN(a_task_may_change_its_directory);
    RUN(a_task_may_leave_threads_behind);
    RUN(the_error_is_of_the_item_that_failed_by_itself);
    RUN(a_map_may_be_far_longer_than_anyone_lets_it_run);
    RUN(every_item_may_fail_with_a_text_of_any_length);
    CHECK_OK(pb_shutdown());
    return check_result();
}
