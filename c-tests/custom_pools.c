/* pb_register_thread_pool: pools that no symbol table tells of are listed and limited like the others. */
#include "check.h"
#include <pthread.h>

/* A stand-in for a user's library. */
struct pool {
    int count;
    int calls; /* of its setter */
};

static int32_t get_count(void *user) {
    return __atomic_load_n(&((struct pool *)user)->count, __ATOMIC_SEQ_CST);
}

static void set_count(void *user, int32_t n) {
    struct pool *pool = user;
    __atomic_store_n(&pool->count, n, __ATOMIC_SEQ_CST);
    __atomic_fetch_add(&pool->calls, 1, __ATOMIC_SEQ_CST);
}

static __thread int own_count = 3;

static int32_t get_own(void *user) {
    (void)user;
    return own_count;
}

static void set_own(void *user, int32_t n) {
    (void)user;
    own_count = n;
}

/* A pool stays registered for the life of the process. */
static struct pool process = {.count = 3};
static struct pool shared = {.count = 3};

static void check_listed(const char *name, const char *user_api, const char *scope, int count) {
    int found = 0;
    for (size_t i = 0, n = pb_thread_pool_count(); i < n; i++) {
        pb_thread_pool pool = {.struct_size = sizeof pool};
        CHECK_OK(pb_thread_pool_get(i, &pool));
        if (strcmp(pool.internal_api, name) != 0)
            continue;
        CHECK_STR(user_api, pool.user_api);
        CHECK_STR(scope, pool.scope);
        CHECK_STR("", pool.prefix);
        CHECK_STR("", pool.filepath);
        CHECK(pool.version == NULL && pool.threading_layer == NULL && pool.architecture == NULL);
        CHECK_INT(count, pool.num_threads);
        CHECK_INT(1, pool.controllable);
        found++;
    }
    CHECK_INT(1, found);
}

/* threadpoolctl: test_custom_controller */
TEST(a_registered_pool_is_listed) {
    CHECK_OK(pb_register_thread_pool("blas", "mine", get_count, set_count, &process, "process"));
    CHECK_OK(pb_register_thread_pool("openmp", "mine-shared", get_count, set_count, &shared, "shared-pool"));
    CHECK_OK(pb_register_thread_pool("tbb", "mine-own", get_own, set_own, NULL, "thread"));
    check_listed("mine", "blas", "process", 3);
    check_listed("mine-shared", "openmp", "shared-pool", 3);
    check_listed("mine-own", "tbb", "thread", 3);
    CHECK_INT(0, process.calls + shared.calls);
}

TEST(a_registered_pool_is_limited_and_put_back) {
    pb_scope outer = 0, inner = 0;
    CHECK_OK(pb_push_thread_limit(1, PB_API_BLAS | PB_API_TBB, &outer));
    CHECK_OK(pb_push_thread_limit(4, PB_API_ALL, &inner));
    check_listed("mine", "blas", "process", 4);
    check_listed("mine-shared", "openmp", "shared-pool", 4);
    check_listed("mine-own", "tbb", "thread", 4);
    CHECK_OK(pb_pop_thread_limit(inner));
    check_listed("mine", "blas", "process", 1);
    check_listed("mine-shared", "openmp", "shared-pool", 3);
    check_listed("mine-own", "tbb", "thread", 1);
    CHECK_OK(pb_pop_thread_limit(outer));
    CHECK_INT(3, process.count);
    CHECK_INT(3, shared.count);
    CHECK_INT(3, own_count);
}

static int32_t look(void *ctx, size_t index, const void *input, void *output) {
    int *counts = output;
    pthread_barrier_wait(ctx);
    (void)index, (void)input;
    counts[0] = get_count(&process);
    counts[1] = get_count(&shared);
    counts[2] = own_count;
    pthread_barrier_wait(ctx);
    return 0;
}

TEST(tasks_of_a_map_find_it_limited_on_every_worker) {
    pthread_barrier_t all_here;
    pb_map_options options = {.struct_size = sizeof options, .n_jobs = 2, .batch_size = 1};
    pb_scope scope = 0;
    int counts[2][3] = {{0, 0, 0}, {0, 0, 0}};
    REQUIRE(pthread_barrier_init(&all_here, NULL, 2) == 0);
    CHECK_OK(pb_push_backend("threading", 2, 2, NULL, &scope));
    CHECK_OK(pb_parallel_map(look, &all_here, 2, NULL, 0, counts, sizeof counts[0], &options));
    CHECK_OK(pb_pop_backend(scope));
    for (int i = 0; i < 6; i++)
        CHECK_INT(2, counts[i / 3][i % 3]);
    CHECK_INT(3, process.count);
    CHECK_INT(3, shared.count);
    CHECK_INT(3, own_count);
    pthread_barrier_destroy(&all_here);
}

TEST(a_process_count_is_set_once_for_a_map_and_once_to_put_it_back) {
    pthread_barrier_t all_here;
    pb_map_options options = {.struct_size = sizeof options, .n_jobs = 2, .batch_size = 1};
    pb_scope scope = 0;
    int counts[2][3];
    int before = process.calls;
    REQUIRE(pthread_barrier_init(&all_here, NULL, 2) == 0);
    CHECK_OK(pb_push_backend("threading", 2, 1, NULL, &scope));
    CHECK_OK(pb_parallel_map(look, &all_here, 2, NULL, 0, counts, sizeof counts[0], &options));
    CHECK_OK(pb_pop_backend(scope));
    CHECK_INT(before + 2, process.calls);
    pthread_barrier_destroy(&all_here);
}

TEST(a_pool_that_cannot_be_registered_says_why) {
    CHECK_STATUS(pb_register_thread_pool("blas", "mine", get_count, set_count, &process, "process"),
                 PB_ERR_EXISTS);
    CHECK_TEXT("mine");
    CHECK_STATUS(pb_register_thread_pool("fft", "x", get_count, set_count, &process, "process"),
                 PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("fft");
    CHECK_STATUS(pb_register_thread_pool("blas", "x", get_count, set_count, &process, "planet"),
                 PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("planet");
    CHECK_STATUS(pb_register_thread_pool("blas", "", get_count, set_count, &process, "process"),
                 PB_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(pb_register_thread_pool("blas", "x", NULL, set_count, &process, "process"),
                 PB_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(pb_register_thread_pool("blas", "x", get_count, NULL, &process, "process"),
                 PB_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(pb_register_thread_pool(NULL, "x", get_count, set_count, &process, "process"),
                 PB_ERR_INVALID_ARGUMENT);
}

TEST(a_pool_number_out_of_range_is_an_error) {
    pb_thread_pool pool = {.struct_size = sizeof pool};
    CHECK_STATUS(pb_thread_pool_get(pb_thread_pool_count(), &pool), PB_ERR_INVALID_ARGUMENT);
    CHECK_STATUS(pb_thread_pool_get(0, NULL), PB_ERR_INVALID_ARGUMENT);
    pool.struct_size = 1;
    CHECK_STATUS(pb_thread_pool_get(0, &pool), PB_ERR_ABI);
}

int main(void) {
    RUN(a_registered_pool_is_listed);
    RUN(a_registered_pool_is_limited_and_put_back);
    RUN(tasks_of_a_map_find_it_limited_on_every_worker);
    RUN(a_process_count_is_set_once_for_a_map_and_once_to_put_it_back);
    RUN(a_pool_that_cannot_be_registered_says_why);
    RUN(a_pool_number_out_of_range_is_an_error);
    CHECK_OK(pb_shutdown());
    return check_result();
}
