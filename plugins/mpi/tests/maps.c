/* A program without MPI in it, as rank 0 of "mpirun -n 1 THIS : -n 3 pb-mpi-worker": what a user of the
 * backend relies on, beyond the conformance suite. */
#include "check.h"
#include "tasks.h"

#include <pthread.h>
#include <time.h>
#include <unistd.h>

enum { WORKERS = 3, N = 1000 };

static pb_scope use_mpi(int32_t n_jobs) {
    pb_scope scope = 0;
    CHECK_OK(pb_push_backend("mpi", n_jobs, 0, NULL, &scope));
    return scope;
}

TEST(the_backend_comes_without_a_call_that_loads_it) {
    int64_t inputs[N], outputs[N];
    for (int64_t i = 0; i < N; ++i)
        inputs[i] = i;
    const pb_scope scope = use_mpi(0);
    CHECK_STR("mpi", pb_current_backend());
    CHECK_OK(pb_parallel_map(twice, NULL, N, inputs, sizeof *inputs, outputs, sizeof *outputs, NULL));
    for (int64_t i = 0; i < N; ++i)
        CHECK_INT(2 * i, outputs[i]);
    CHECK_OK(pb_pop_backend(scope));
}

/* All means all ranks, whatever CPUs rank 0 has. */
TEST(all_workers_are_all_ranks_but_the_first) {
    pb_scope scope = use_mpi(0);
    CHECK_INT(WORKERS, pb_effective_n_jobs(0));
    CHECK_INT(WORKERS, pb_effective_n_jobs(-1));
    CHECK_INT(WORKERS - 1, pb_effective_n_jobs(-2));
    CHECK_INT(WORKERS, pb_effective_n_jobs(1000));
    CHECK_OK(pb_pop_backend(scope));
    scope = use_mpi(-2);
    CHECK_INT(WORKERS - 1, pb_effective_n_jobs(0));
    CHECK_OK(pb_pop_backend(scope));
}

static int32_t processes_used(int32_t n_jobs) {
    int32_t ran[60], seen[60], count = 0;
    const pb_scope scope = use_mpi(n_jobs);
    CHECK_OK(pb_parallel_map(who, NULL, 60, NULL, 0, ran, sizeof *ran, NULL));
    CHECK_OK(pb_pop_backend(scope));
    for (int i = 0; i < 60; ++i) {
        int at = 0;
        while (at < count && seen[at] != ran[i])
            ++at;
        if (at == count)
            seen[count++] = ran[i];
        CHECK(ran[i] != getpid());
    }
    return count;
}

TEST(n_jobs_is_the_number_of_ranks_that_work) {
    for (int32_t n_jobs = 1; n_jobs <= WORKERS; ++n_jobs)
        CHECK_INT(n_jobs, processes_used(n_jobs));
}

TEST(a_failed_task_is_the_error_of_the_map) {
    const pb_scope scope = use_mpi(0);
    CHECK_STATUS(pb_parallel_map(fail_at_7, NULL, 20, NULL, 0, NULL, 0, NULL), PB_ERR_TASK_FAILED);
    CHECK_TEXT("seven is not to be had");
    pb_error_info info = {.struct_size = sizeof info};
    CHECK_OK(pb_last_error_info(&info));
    CHECK_INT(42, info.task_code);
    CHECK_INT(7, info.task_index);
    CHECK_OK(pb_pop_backend(scope));
}

static int32_t of_the_program(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input, (void)output;
    return 0;
}

TEST(a_function_of_this_program_is_not_in_workers_and_the_error_says_what_to_do) {
    const pb_scope scope = use_mpi(0);
    CHECK_STATUS(pb_parallel_map(of_the_program, NULL, 4, NULL, 0, NULL, 0, NULL), PB_ERR_TASK_NOT_PORTABLE);
    CHECK_TEXT("shared library");
    int64_t without_size = 1;
    CHECK_STATUS(pb_parallel_map(twice, &without_size, 4, NULL, 0, NULL, 0, NULL), PB_ERR_TASK_NOT_PORTABLE);
    CHECK_TEXT("ctx_size");
    CHECK_OK(pb_pop_backend(scope));
}

/* Small ones go with the chunks, large ones ahead of them, once. */
TEST(ctx_of_any_size_is_there) {
    const pb_scope scope = use_mpi(0);
    for (size_t size = 16; size <= (size_t)64 << 20; size *= size < 1 << 20 ? 16 : 64) {
        unsigned char *ctx = calloc(1, size);
        CHECK(ctx != NULL);
        const uint64_t bytes = size;
        memcpy(ctx, &bytes, sizeof bytes);
        for (int round = 1; round <= 2; ++round) { /* a later map has the bytes of its own call */
            memset(ctx + sizeof bytes, round, size - sizeof bytes);
            uint64_t sums[50], expected = 0;
            for (size_t i = sizeof bytes; i < size; i += 997)
                expected += ctx[i];
            pb_map_options options = {.struct_size = sizeof options};
            options.ctx_size = size;
            options.batch_size = 1;
            CHECK_OK(pb_parallel_map(sum_ctx, ctx, 50, NULL, 0, sums, sizeof *sums, &options));
            for (int i = 0; i < 50; ++i)
                CHECK_INT(expected, sums[i]);
        }
        free(ctx);
    }
    CHECK_OK(pb_pop_backend(scope));
}

TEST(outputs_of_megabytes_arrive_whole) {
    enum { COUNT = 12 };
    struct big *big = malloc(COUNT * sizeof *big);
    CHECK(big != NULL);
    const pb_scope scope = use_mpi(0);
    CHECK_OK(pb_parallel_map(fill, NULL, COUNT, NULL, 0, big, sizeof *big, NULL));
    for (int i = 0; i < COUNT; ++i)
        for (size_t at = 0; at < sizeof *big; at += at < 4096 ? 1 : 4093)
            CHECK_INT(i + 1, big[i].bytes[at]);
    /* And in the other direction. */
    int64_t firsts[COUNT];
    CHECK_OK(pb_parallel_map(twice, NULL, COUNT, big, sizeof *big, firsts, sizeof *firsts, NULL));
    for (int i = 0; i < COUNT; ++i)
        CHECK_INT(2 * 0x0101010101010101LL * (i + 1), firsts[i]);
    CHECK_OK(pb_pop_backend(scope));
    free(big);
}

TEST(bytes_of_any_size_go_in_and_come_out) {
    enum { COUNT = 40 };
    static char text[300 * 1024];
    memset(text, 'x', sizeof text);
    pb_bytes inputs[COUNT];
    for (int i = 0; i < COUNT; ++i)
        inputs[i] = (pb_bytes){text, i % 3 == 0 ? 0 : i % 3 == 1 ? 5 : sizeof text};
    const pb_scope scope = use_mpi(0);
    pb_results *results = NULL;
    CHECK_OK(pb_map_bytes(repeat, NULL, COUNT, inputs, NULL, &results));
    for (int i = 0; i < COUNT; ++i) {
        pb_bytes out;
        CHECK_OK(pb_results_get(results, (size_t)i, &out));
        CHECK_INT(inputs[i].size * (size_t)(i + 1), out.size);
        CHECK(out.size == 0 || ((const char *)out.data)[out.size - 1] == 'x');
    }
    pb_results_free(results);
    CHECK_OK(pb_pop_backend(scope));
}

static int exists(const char *path) { return access(path, F_OK) == 0; }

/* The tasks run when the cancel comes, and end because they hear of it. */
TEST(a_cancelled_map_ends_and_its_tasks_hear_of_it) {
    char path[] = "/tmp/pb-mpi-cancel-XXXXXX";
    CHECK(mkdtemp(path) != NULL);
    char file[sizeof path + 8];
    snprintf(file, sizeof file, "%s/runs", path);
    int32_t heard[WORKERS] = {0};
    pb_map_options options = {.struct_size = sizeof options};
    options.ctx_size = sizeof file;
    const pb_scope scope = use_mpi(0);
    pb_job *job = NULL;
    CHECK_OK(pb_submit_map(tell_and_wait, file, WORKERS, NULL, 0, heard, sizeof *heard, &options, &job));
    while (!exists(file))
        usleep(1000);
    CHECK_STATUS(pb_job_wait(job, 0), PB_PENDING);
    CHECK_OK(pb_job_cancel(job));
    const pb_status status = pb_job_wait(job, -1);
    CHECK(status == PB_ERR_CANCELLED || status == PB_OK); /* all may have run to their end */
    int32_t count = 0;
    for (int i = 0; i < WORKERS; ++i)
        count += heard[i];
    CHECK(count >= 1);
    pb_job_free(job);
    CHECK_INT(WORKERS, processes_used(0)); /* and the ranks work on */
    CHECK_OK(pb_pop_backend(scope));
    unlink(file);
    rmdir(path);
}

/* Two maps on the same ranks: the end of one is not the end of the other. */
TEST(cancelling_one_map_leaves_the_other_alone) {
    int64_t inputs[N], outputs[N];
    for (int64_t i = 0; i < N; ++i)
        inputs[i] = i;
    pb_map_options options = {.struct_size = sizeof options};
    options.batch_size = 1;
    const pb_scope scope = use_mpi(0);
    for (int round = 0; round < 5; ++round) {
        int32_t heard[8];
        pb_job *stopped = NULL, *other = NULL;
        CHECK_OK(pb_submit_map(until_cancelled, NULL, 8, NULL, 0, heard, sizeof *heard, &options, &stopped));
        CHECK_OK(pb_submit_map(twice, NULL, N, inputs, sizeof *inputs, outputs, sizeof *outputs, &options,
                               &other));
        CHECK_OK(pb_job_cancel(stopped));
        CHECK_STATUS(pb_job_wait(stopped, -1), PB_ERR_CANCELLED);
        CHECK_OK(pb_job_wait(other, -1));
        for (int64_t i = 0; i < N; ++i)
            CHECK_INT(2 * i, outputs[i]);
        pb_job_free(stopped);
        pb_job_free(other);
    }
    CHECK_OK(pb_pop_backend(scope));
}

TEST(a_task_beyond_its_time_is_late) {
    int32_t heard[4];
    pb_map_options options = {.struct_size = sizeof options};
    options.timeout = 0.2;
    const pb_scope scope = use_mpi(0);
    CHECK_STATUS(pb_parallel_map(until_cancelled, NULL, 4, NULL, 0, heard, sizeof *heard, &options),
                 PB_ERR_TIMEOUT);
    CHECK_OK(pb_pop_backend(scope));
}

TEST(maps_inside_tasks_run_on_threads_of_the_rank) {
    int64_t seen[6][3];
    const pb_scope scope = use_mpi(0);
    CHECK_OK(pb_parallel_map(nested, NULL, 6, NULL, 0, seen, sizeof *seen, NULL));
    for (int i = 0; i < 6; ++i) {
        CHECK_INT(328350, seen[i][0]);
        CHECK(seen[i][1] >= 1);
        CHECK(seen[i][2] >= 1);
    }
    CHECK_OK(pb_pop_backend(scope));
}

TEST(workers_cannot_give_work_to_ranks_and_stay) {
    int32_t statuses[6];
    const pb_scope scope = use_mpi(0);
    for (int round = 0; round < 2; ++round) {
        CHECK_OK(pb_parallel_map(use_mpi_in_task, NULL, 6, NULL, 0, statuses, sizeof *statuses, NULL));
        for (int i = 0; i < 6; ++i)
            CHECK_INT(PB_ERR_BACKEND_UNAVAILABLE, statuses[i]);
    }
    CHECK_OK(pb_pop_backend(scope));
}

TEST(a_default_backend_may_be_mpi) {
    int64_t inputs[N] = {0}, outputs[N];
    CHECK_OK(pb_set_default_backend("mpi", 2, 0, NULL));
    CHECK_OK(pb_parallel_map(twice, NULL, N, inputs, sizeof *inputs, outputs, sizeof *outputs, NULL));
    CHECK_OK(pb_set_default_backend(NULL, 0, 0, NULL));
}

/* Last: MPI ends here. */
TEST(after_a_shutdown_there_is_no_second_beginning) {
    CHECK_OK(pb_shutdown());
    pb_scope scope;
    CHECK_STATUS(pb_push_backend("mpi", 0, 0, NULL, &scope), PB_ERR_BACKEND_UNAVAILABLE);
    CHECK_TEXT("pb_shutdown");
}

/* One rank says that it is on another machine: its tasks own CPUs of that one, all of them, as it is alone
 * there. */
TEST(on_another_machine_tasks_own_its_cpus) {
    int64_t seen[2][3];
    const pb_scope scope = use_mpi(0);
    CHECK_INT(1, pb_effective_n_jobs(0));
    CHECK_OK(pb_parallel_map(nested, NULL, 2, NULL, 0, seen, sizeof *seen, NULL));
    for (int i = 0; i < 2; ++i)
        CHECK_INT(1, seen[i][1]);
    CHECK_OK(pb_pop_backend(scope));
    CHECK_OK(pb_shutdown());
}

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "far") == 0) {
        RUN(on_another_machine_tasks_own_its_cpus);
        return check_result();
    }
    RUN(the_backend_comes_without_a_call_that_loads_it);
    RUN(all_workers_are_all_ranks_but_the_first);
    RUN(n_jobs_is_the_number_of_ranks_that_work);
    RUN(a_failed_task_is_the_error_of_the_map);
    RUN(a_function_of_this_program_is_not_in_workers_and_the_error_says_what_to_do);
    RUN(ctx_of_any_size_is_there);
    RUN(outputs_of_megabytes_arrive_whole);
    RUN(bytes_of_any_size_go_in_and_come_out);
    RUN(a_cancelled_map_ends_and_its_tasks_hear_of_it);
    RUN(cancelling_one_map_leaves_the_other_alone);
    RUN(a_task_beyond_its_time_is_late);
    RUN(maps_inside_tasks_run_on_threads_of_the_rank);
    RUN(workers_cannot_give_work_to_ranks_and_stay);
    RUN(a_default_backend_may_be_mpi);
    RUN(after_a_shutdown_there_is_no_second_beginning);
    return check_result();
}
