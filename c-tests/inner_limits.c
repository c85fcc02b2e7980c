/* inner_max_num_threads: what real libraries use inside the tasks of a map, and that they have their own
 * counts back after it. */
#include "native_library.h"

/* Workers of the maps here, which all meet, so that each runs one of the items. */
enum { WORKERS = 2 };

struct seen {
    int share; /* of the CPUs */
    int get;
    int used;
};

static pthread_barrier_t all_here;

/* One at a time: OpenBLAS on OpenMP keeps buffers that all callers share, and changes them when the count
 * differs from that of the call before. */
static int used_alone(void) {
    static pthread_mutex_t one = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&one);
    int used = library.used();
    pthread_mutex_unlock(&one);
    return used;
}

static int32_t look(void *ctx, size_t index, const void *input, void *output) {
    struct seen *seen = output;
    (void)ctx, (void)index, (void)input;
    pthread_barrier_wait(&all_here);
    seen->share = pb_effective_n_jobs(-1);
    seen->get = library.get();
    seen->used = used_alone();
    pthread_barrier_wait(&all_here); /* nobody has left the map while another looks */
    return 0;
}

/* What the tasks of a map see that is called here, with `workers` workers. */
static void look_in_tasks(int workers, struct seen *seen) {
    pb_map_options options = {.struct_size = sizeof options, .n_jobs = workers, .batch_size = 1};
    REQUIRE(pthread_barrier_init(&all_here, NULL, (unsigned)workers) == 0);
    CHECK_OK(pb_parallel_map(look, NULL, (size_t)workers, NULL, 0, seen, sizeof *seen, &options));
    pthread_barrier_destroy(&all_here);
}

static void check_counts(int expected, const struct seen *seen, int count) {
    for (int i = 0; i < count; i++) {
        CHECK_INT(count_of(expected), seen[i].get);
        CHECK_INT(count_of(expected), seen[i].used);
    }
}

static void check_caller_has_its_own(void) {
    CHECK_INT(count_of(ORIGINAL), library.get());
    CHECK_INT(count_of(ORIGINAL), library.used());
}

static void check_limit_in_tasks(int expected) {
    struct seen seen[WORKERS] = {{0, 0, 0}};
    look_in_tasks(WORKERS, seen);
    check_counts(expected, seen, WORKERS);
    check_caller_has_its_own();
}

/* joblib: test_parallel.py::test_parallel_thread_limit, ::test_threadpool_limitation_in_child_loky[None].
 * joblib does this for its worker processes only. */
TEST(tasks_have_their_share_of_the_cpus) {
    struct seen seen[WORKERS] = {{0, 0, 0}};
    look_in_tasks(WORKERS, seen);
    for (int i = 0; i < WORKERS; i++)
        check_counts(least(ORIGINAL, seen[i].share), &seen[i], 1);
    CHECK_INT(1, seen[0].share); /* of two CPUs */
    check_caller_has_its_own();
}

/* A map with as many workers as CPUs, but only one item: that item may use all of them. */
TEST(the_only_task_of_a_map_has_all_cpus) {
    struct seen seen = {0, 0, 0};
    pb_map_options options = {.struct_size = sizeof options, .n_jobs = WORKERS};
    REQUIRE(pthread_barrier_init(&all_here, NULL, 1) == 0);
    CHECK_OK(pb_parallel_map(look, NULL, 1, NULL, 0, &seen, sizeof seen, &options));
    pthread_barrier_destroy(&all_here);
    CHECK_INT(pb_cpu_count(0), seen.share);
    check_counts(least(ORIGINAL, seen.share), &seen, 1);
}

/* joblib: ::test_threadpool_limitation_in_child_loky[1, 2, 4], ::test_threadpool_limitation_in_child_context.
 * A number that the caller names may be above the share, and above the count outside. */
TEST(tasks_have_the_number_of_threads_that_is_named) {
    const int limits[] = {1, 2, 4};
    for (int i = 0; i < 3; i++) {
        pb_scope scope = 0;
        CHECK_OK(pb_push_backend("threading", WORKERS, limits[i], NULL, &scope));
        check_limit_in_tasks(limits[i]);
        CHECK_OK(pb_pop_backend(scope));
    }
}

/* A map with one worker is a plain loop and limits nothing by itself, but it does what is named. */
TEST(a_map_of_one_worker_limits_only_when_told) {
    struct seen seen = {0, 0, 0};
    pb_scope scope = 0;
    look_in_tasks(1, &seen);
    check_counts(ORIGINAL, &seen, 1);
    CHECK_OK(pb_push_backend("sequential", 1, 2, NULL, &scope));
    look_in_tasks(1, &seen);
    check_counts(2, &seen, 1);
    CHECK_OK(pb_pop_backend(scope));
    check_caller_has_its_own();
}

/* joblib: ::test_threadpool_limitation_in_child_override, where a variable of the parent beats the default,
 * and an explicit argument beats the variable. There the variables are OMP_NUM_THREADS and its like, of which
 * a higher one also raises the default; here those count as what the user's library starts with, and are
 * capped to the share like any other count (see user_variables.c). PB_INNER_MAX_NUM_THREADS says more. */
TEST(the_variable_beats_the_share_and_an_argument_beats_the_variable) {
    pb_scope scope = 0;
    setenv("PB_INNER_MAX_NUM_THREADS", "4", 1);
    check_limit_in_tasks(4);
    CHECK_OK(pb_push_backend("threading", WORKERS, 2, NULL, &scope));
    check_limit_in_tasks(2);
    CHECK_OK(pb_pop_backend(scope));
    unsetenv("PB_INNER_MAX_NUM_THREADS");
    check_limit_in_tasks(1);
}

/* ---- threads of the pool have their counts back ---------------------------------------------------- */

struct stay {
    pthread_mutex_t gate; /* held until the job's end has a listener */
    pthread_t worker;     /* that ran the item */
    int inside;
    int after; /* on the same thread, once the map is over */
    pb_job *job;
    pthread_barrier_t heard;
};

static int32_t stay_in_map(void *ctx, size_t index, const void *input, void *output) {
    struct stay *stay = ctx;
    (void)index, (void)input, (void)output;
    pthread_mutex_lock(&stay->gate);
    pthread_mutex_unlock(&stay->gate);
    stay->worker = pthread_self();
    stay->inside = library.used();
    return 0;
}

static int32_t hear_of_end(void *user) {
    struct stay *stay = user;
    CHECK(pthread_equal(stay->worker, pthread_self()));
    stay->after = library.used();
    pthread_barrier_wait(&stay->heard);
    return 0;
}

TEST(a_worker_thread_has_its_own_count_back) {
    struct stay stay = {.gate = PTHREAD_MUTEX_INITIALIZER};
    pb_map_options options = {.struct_size = sizeof options, .n_jobs = 1};
    pb_scope scope = 0;
    REQUIRE(pthread_barrier_init(&stay.heard, NULL, 2) == 0);
    CHECK_OK(pb_push_backend(NULL, 0, 4, NULL, &scope));
    pthread_mutex_lock(&stay.gate);
    CHECK_OK(pb_submit_map(stay_in_map, &stay, 1, NULL, 0, NULL, 0, &options, &stay.job));
    CHECK_OK(pb_job_notify(stay.job, hear_of_end, &stay));
    pthread_mutex_unlock(&stay.gate);
    pthread_barrier_wait(&stay.heard);
    CHECK_INT(count_of(4), stay.inside);
    CHECK_INT(count_of(ORIGINAL), stay.after);
    pb_job_free(stay.job);
    pthread_barrier_destroy(&stay.heard);
    CHECK_OK(pb_pop_backend(scope));
}

/* ---- backends of others ---------------------------------------------------------------------------- */

static void *work(void *job) {
    pb_chunk chunk;
    while (pb_job_claim(job, &chunk) == PB_OK)
        CHECK_OK(pb_job_run(job, &chunk));
    return NULL;
}

/* A backend that starts new threads for every map. */
static pb_status run_on_new_threads(void *state, void *session, pb_job *job) {
    pthread_t threads[WORKERS];
    (void)state, (void)session;
    REQUIRE(pb_job_n_jobs(job) == WORKERS);
    for (int i = 0; i < WORKERS; i++)
        REQUIRE(pthread_create(&threads[i], NULL, work, job) == 0);
    for (int i = 0; i < WORKERS; i++)
        pthread_join(threads[i], NULL);
    return PB_OK;
}

static void check_with_backend(uint32_t capabilities, int inner, int expected) {
    pb_backend_vtable table = {.struct_size = sizeof table,
                               .abi_version = PB_BACKEND_ABI_VERSION,
                               .capabilities = PB_BACKEND_SHARES_MEMORY | capabilities,
                               .run = run_on_new_threads};
    pb_scope scope = 0;
    CHECK_OK(pb_register_backend("new-threads", &table, NULL, 0));
    CHECK_OK(pb_push_backend("new-threads", WORKERS, inner, NULL, &scope));
    check_limit_in_tasks(expected);
    CHECK_OK(pb_pop_backend(scope));
    CHECK_OK(pb_unregister_backend("new-threads"));
}

/* joblib: ::test_threadpool_limitation_in_child_context_error. There such a backend refuses an inner limit;
 * here it need not know about it. */
TEST(a_backend_that_knows_nothing_of_limits_gets_them_all_the_same) {
    check_with_backend(0, 0, 1);
    check_with_backend(0, 2, 2);
    check_with_backend(0, 4, 4);
}

TEST(a_backend_that_sees_to_limits_itself_is_left_to_it) {
    check_with_backend(PB_BACKEND_INNER_LIMITS, 0, ORIGINAL);
    check_with_backend(PB_BACKEND_INNER_LIMITS, 2, ORIGINAL);
}

int main(int argc, char **argv) {
    library_start(argc, argv);
    RUN(tasks_have_their_share_of_the_cpus);
    RUN(the_only_task_of_a_map_has_all_cpus);
    RUN(tasks_have_the_number_of_threads_that_is_named);
    RUN(a_map_of_one_worker_limits_only_when_told);
    RUN(the_variable_beats_the_share_and_an_argument_beats_the_variable);
    RUN(a_worker_thread_has_its_own_count_back);
    RUN(a_backend_that_knows_nothing_of_limits_gets_them_all_the_same);
    RUN(a_backend_that_sees_to_limits_itself_is_left_to_it);
    CHECK_OK(pb_shutdown());
    return check_result();
}
