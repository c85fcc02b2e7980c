/* The backend "openmp" as a program meets it: loaded from its file, chosen in a scope, run with OpenMP around
 * it. */
#include "check.h"

#include <parallel_backend.h>

#include <omp.h>
#include <string.h>

enum { N = 1000 };

/* Notes in its slot that it ran, and on how deep an OpenMP level. */
static int32_t note_level(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input;
    *(int *)output += 1 + omp_get_active_level();
    return 0;
}

static int32_t fail_at_77(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)input, (void)output;
    return index == 77 ? 9 : 0;
}

static pb_scope push_openmp(int32_t n_jobs) {
    pb_scope scope = 0;
    CHECK_INT(PB_OK, pb_push_backend("openmp", n_jobs, 0, NULL, &scope));
    return scope;
}

TEST(every_item_runs_once_in_one_parallel_region) {
    int levels[N] = {0};
    const pb_scope scope = push_openmp(2);
    CHECK_INT(2, pb_effective_n_jobs(0));
    CHECK_INT(PB_OK, pb_parallel_map(note_level, NULL, N, NULL, 0, levels, sizeof levels[0], NULL));
    CHECK_INT(PB_OK, pb_pop_backend(scope));
    for (size_t i = 0; i < N; ++i) {
        CHECK_INT(2, levels[i]);
    }
}

TEST(a_failed_task_is_the_error_of_the_map) {
    const pb_scope scope = push_openmp(2);
    CHECK_INT(PB_ERR_TASK_FAILED, pb_parallel_map(fail_at_77, NULL, N, NULL, 0, NULL, 0, NULL));
    pb_error_info info = {.struct_size = sizeof info};
    CHECK_INT(PB_OK, pb_last_error_info(&info));
    CHECK_INT(77, info.task_index);
    CHECK_INT(9, info.task_code);
    CHECK_INT(PB_OK, pb_pop_backend(scope));
}

/* OpenMP makes no second team here, so the calling thread does all the work. */
TEST(a_map_inside_a_parallel_region_is_complete) {
    int levels[N] = {0};
    int32_t n_jobs = 0;
    omp_set_max_active_levels(1);
#pragma omp parallel num_threads(2)
#pragma omp master
    {
        const pb_scope scope = push_openmp(2);
        n_jobs = pb_effective_n_jobs(0);
        CHECK_INT(PB_OK, pb_parallel_map(note_level, NULL, N, NULL, 0, levels, sizeof levels[0], NULL));
        CHECK_INT(PB_OK, pb_pop_backend(scope));
    }
    CHECK_INT(1, n_jobs);
    for (size_t i = 0; i < N; ++i) {
        CHECK_INT(2, levels[i]);
    }
}

TEST(parameters_are_refused_by_name) {
    pb_scope scope = 0;
    CHECK_INT(PB_ERR_INVALID_ARGUMENT, pb_push_backend("openmp", 2, 0, "schedule=static", &scope));
    CHECK(strstr(pb_last_error(), "schedule") != NULL);
}

int main(int argc, char **argv) {
    CHECK_INT(2, argc);
    CHECK_INT(PB_OK, pb_load_plugin(argv[1]));
    RUN(every_item_runs_once_in_one_parallel_region);
    RUN(a_failed_task_is_the_error_of_the_map);
    RUN(a_map_inside_a_parallel_region_is_complete);
    RUN(parameters_are_refused_by_name);
    return check_result();
}
