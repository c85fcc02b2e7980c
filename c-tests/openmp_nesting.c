/* A real library inside a parallel region of OpenMP, of the same runtime or another one. */
#include "native_library.h"

static struct {
    int (*get)(void);
    int (*size)(void);
    void (*run)(void (*body)(void *), void *argument);
    void (*set_levels)(int);
} region;

static void *bound(void *module, const char *name) {
    void *address = dlsym(module, name);
    REQUIRE(address != NULL);
    return address;
}

static void region_load(const char *file) {
    void *module = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    REQUIRE(module != NULL);
    memcpy(&region.get, &(void *){bound(module, "omp_get_max_threads")}, sizeof region.get);
    memcpy(&region.size, &(void *){bound(module, "team_size")}, sizeof region.size);
    memcpy(&region.run, &(void *){bound(module, "team_run")}, sizeof region.run);
    memcpy(&region.set_levels, &(void *){bound(module, "omp_set_max_active_levels")},
           sizeof region.set_levels);
}

struct team {
    pthread_mutex_t one_at_a_time;
    int threads;
    int largest; /* number of threads that the library has used on one of them */
};

static void use(void *argument) {
    struct team *team = argument;
    pthread_mutex_lock(&team->one_at_a_time);
    int used = library.used();
    team->threads++;
    team->largest = used > team->largest ? used : team->largest;
    pthread_mutex_unlock(&team->one_at_a_time);
}

static void use_limited(void *argument) {
    pb_scope scope = 0;
    CHECK_OK(pb_push_thread_limit(1, PB_API_ALL, &scope));
    use(argument);
    CHECK_OK(pb_pop_thread_limit(scope));
}

/* threadpoolctl: test_openmp_nesting, test_nested_prange_blas */
TEST(inside_a_region_each_thread_limits_the_library_and_the_region_keeps_its_size) {
    struct team team = {.one_at_a_time = PTHREAD_MUTEX_INITIALIZER};
    region.run(use_limited, &team);
    CHECK_INT(ORIGINAL, team.threads);
    CHECK_INT(1, team.largest);
    CHECK_INT(ORIGINAL, region.get());
    CHECK_INT(ORIGINAL, region.size());
    CHECK_INT(count_of(ORIGINAL), library.get());
}

/* threadpoolctl: test_threadpool_controller_limit, where OpenBLAS on OpenMP is the exception, too. */
TEST(limiting_blas_leaves_the_regions_of_other_code_as_they_are) {
    struct team team = {.one_at_a_time = PTHREAD_MUTEX_INITIALIZER};
    int is_on_openmp = is_openblas() && strcmp(library.layer, "openmp") == 0;
    pb_scope scope = 0;
    CHECK_OK(pb_push_thread_limit(1, PB_API_BLAS, &scope));
    region.run(use, &team);
    CHECK_INT(is_on_openmp ? 1 : ORIGINAL, team.threads);
    if (is_openblas())
        CHECK_INT(1, team.largest);
    CHECK_OK(pb_pop_thread_limit(scope));
    CHECK_INT(ORIGINAL, region.size());
}

static int32_t use_in_region(void *ctx, size_t index, const void *input, void *output) {
    struct team team = {.one_at_a_time = PTHREAD_MUTEX_INITIALIZER};
    (void)ctx, (void)index, (void)input;
    region.run(use, &team);
    ((int *)output)[0] = team.threads;
    ((int *)output)[1] = team.largest;
    return 0;
}

/* Every runtime that is loaded is limited, not only one. */
TEST(regions_in_tasks_have_the_share_of_the_task) {
    pb_map_options options = {.struct_size = sizeof options, .n_jobs = 2, .batch_size = 1};
    int seen[2][2] = {{0, 0}, {0, 0}};
    CHECK_OK(pb_parallel_map(use_in_region, NULL, 2, NULL, 0, seen, sizeof seen[0], &options));
    for (int i = 0; i < 2; i++) {
        CHECK_INT(1, seen[i][0]);
        CHECK_INT(1, seen[i][1]);
    }
    CHECK_INT(ORIGINAL, region.size());
}

int main(int argc, char **argv) {
    library_start(argc, argv);
    region_load(argv[3]);
    region.set_levels(2); /* so that a region inside a region has threads, if nobody limits it */
    RUN(inside_a_region_each_thread_limits_the_library_and_the_region_keeps_its_size);
    RUN(limiting_blas_leaves_the_regions_of_other_code_as_they_are);
    RUN(regions_in_tasks_have_the_share_of_the_task);
    CHECK_OK(pb_shutdown());
    return check_result();
}
