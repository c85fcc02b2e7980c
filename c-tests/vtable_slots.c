/* What a backend's other slots and capabilities decide: workers, nested maps, inner limits, memory. */
#include "fake_backend.h"

/* ---- effective_n_jobs ---- */

typedef struct sight {
    int32_t level, worker;
    char backend[32];
} sight;

static int32_t look(void *ctx, size_t index, const void *input, void *output) {
    sight *s = output;
    (void)ctx, (void)index, (void)input;
    s->level = pb_nesting_level();
    s->worker = pb_worker_index();
    snprintf(s->backend, sizeof s->backend, "%s", pb_current_backend());
    return 0;
}

static pb_status map_look(size_t n, sight *sights) {
    return pb_parallel_map(look, NULL, n, NULL, 0, sights, sizeof *sights, NULL);
}

static int32_t jobs_seen;
static pb_status run_and_note_jobs(struct fake *fake, pb_job *job) {
    jobs_seen = pb_job_n_jobs(job);
    return fake_run_all(fake, job);
}

TEST(a_backend_without_an_active_worker_runs_nothing) {
    static const int32_t none[] = {0, -1, PB_ERR_IO, INT32_MIN};
    struct fake fake = FAKE;
    int32_t count = 0;
    fake.says_workers = 1;
    fake_register(&fake);
    const pb_scope scope = fake_push(2);
    for (size_t i = 0; i < sizeof none / sizeof *none; ++i) {
        char text[48];
        fake.workers = none[i];
        CHECK_STATUS(count_map(10, &count), PB_ERR_BACKEND_UNAVAILABLE);
        CHECK_TEXT("'fake' has no active worker");
        snprintf(text, sizeof text, "says %d", none[i]);
        CHECK_TEXT(text);
        CHECK_INT(PB_ERR_BACKEND_UNAVAILABLE, pb_effective_n_jobs(0));
    }
    CHECK_INT(0, count);
    CHECK_INT(0, fake.runs);
    fake.workers = 1;
    check_map_works();
    fake_end(scope);
}

TEST(a_backend_may_have_fewer_or_more_workers_than_asked_for) {
    struct fake fake = FAKE;
    int32_t count = 0;
    fake.says_workers = 1;
    fake.run = run_and_note_jobs;
    fake_register(&fake);
    const pb_scope scope = fake_push(4);
    static const int32_t workers[] = {1, 3, 9, 1000, INT32_MAX};
    for (size_t i = 0; i < sizeof workers / sizeof *workers; ++i) {
        fake.workers = workers[i];
        CHECK_INT(workers[i], pb_effective_n_jobs(0));
        CHECK_OK(count_map(20, &count));
        CHECK_INT(20, count);
        CHECK_INT(workers[i] < 20 ? workers[i] : 20, jobs_seen); /* never more than items */
    }
    fake_end(scope);
}

/* ---- max_n_jobs, shutdown ---- */

static int32_t says_64(void *state, void *session) {
    CHECK(session == fake_session(state));
    return 64;
}

static int32_t says_nothing(void *state, void *session) {
    (void)state, (void)session;
    return 0;
}

static void hear_shutdown(void *state) { fake_log(state, 's'); }

static int32_t workers_for(int32_t n_jobs) {
    const pb_scope scope = fake_push(n_jobs);
    const int32_t workers = pb_effective_n_jobs(0);
    CHECK_OK(pb_pop_backend(scope));
    return workers;
}

TEST(a_backend_may_have_workers_that_are_not_this_machines_cpus) {
    struct fake fake = FAKE;
    pb_backend_vtable vtable = fake_vtable();
    vtable.max_n_jobs = says_64;
    CHECK_OK(pb_register_backend("fake", &vtable, &fake, 0));
    CHECK_INT(64, workers_for(0));
    CHECK_INT(64, workers_for(-1));
    CHECK_INT(63, workers_for(-2));
    CHECK_INT(1, workers_for(-1000));
    CHECK_INT(3, workers_for(3)); /* a number is that number */
    CHECK_OK(pb_unregister_backend("fake"));
    vtable.max_n_jobs = says_nothing;
    CHECK_OK(pb_register_backend("fake", &vtable, &fake, 0));
    CHECK_INT(pb_cpu_count(0), workers_for(-1));
    CHECK_OK(pb_unregister_backend("fake"));
}

/* After the sessions that no scope opened are closed; those of scopes stay. */
TEST(a_backend_hears_of_a_shutdown) {
    struct fake fake = FAKE;
    pb_backend_vtable vtable = fake_vtable();
    vtable.shutdown = hear_shutdown;
    CHECK_OK(pb_register_backend("fake", &vtable, &fake, PB_BACKEND_MAKE_DEFAULT));
    check_map_works();
    CHECK_OK(pb_shutdown());
    CHECK_STR("ocs", fake.log);
    const pb_scope scope = fake_push(2);
    CHECK_OK(pb_shutdown());
    CHECK_STR("ocsos", fake.log);
    check_map_works();
    fake_end(scope);
    CHECK_STR("ocsoscd", fake.log);
}

/* ---- nested_backend ---- */

TEST(a_backend_may_choose_where_nested_maps_run) {
    struct fake fake = FAKE;
    sight sights[10];
    fake.nested = "sequential";
    fake_register(&fake);
    const pb_scope scope = fake_push(2);
    CHECK_OK(map_look(10, sights));
    CHECK_STR("sequential", sights[9].backend);
    CHECK_INT(1, fake.nested_level);
    fake.nested = NULL; /* the default rule: threads at level 1 */
    CHECK_OK(map_look(10, sights));
    CHECK_STR("threading", sights[9].backend);
    fake_end(scope);
}

static int32_t map_in_task(void *ctx, size_t index, const void *input, void *output) {
    int32_t count = 0;
    (void)ctx, (void)index, (void)input;
    const pb_status status = count_map(6, &count);
    if (status != PB_OK)
        pb_task_fail(pb_last_error());
    *(int32_t *)output = count;
    return status;
}

/* The fake's nested maps are its own, at level 2 and deeper; each level asks again. */
TEST(a_backend_may_keep_nested_maps_to_itself) {
    struct fake fake = FAKE;
    int32_t counts[4];
    fake.nested = "fake";
    fake_register(&fake);
    const pb_scope scope = fake_push(2);
    pb_map_options options = {.struct_size = sizeof options};
    CHECK_OK(pb_parallel_map(map_in_task, NULL, 4, NULL, 0, counts, sizeof *counts, &options));
    for (int i = 0; i < 4; ++i)
        CHECK_INT(6, counts[i]);
    CHECK_INT(5, fake.runs);
    fake_end(scope);
    CHECK_STR("ooccd", fake.log); /* the scope's session, and one that the nested maps shared */
}

TEST(an_unknown_nested_backend_is_the_error_of_the_nested_map) {
    struct fake fake = FAKE;
    int32_t counts[4];
    sight sights[4];
    fake.nested = "nobody";
    fake_register(&fake);
    const pb_scope scope = fake_push(2);
    CHECK_OK(map_look(4, sights)); /* nobody needs it */
    CHECK_STATUS(pb_parallel_map(map_in_task, NULL, 4, NULL, 0, counts, sizeof *counts, NULL),
                 PB_ERR_TASK_FAILED);
    CHECK_TEXT("unknown backend 'nobody'");
    pb_error_info info = {.struct_size = sizeof info};
    CHECK_OK(pb_last_error_info(&info));
    CHECK_INT(PB_ERR_UNKNOWN_BACKEND, info.task_code);
    fake_end(scope);
}

/* ---- capabilities ---- */

enum { MANY = 100000 }; /* above any share of the CPUs */
static int32_t pool_count = MANY;

static int32_t get_count(void *user) {
    (void)user;
    return __atomic_load_n(&pool_count, __ATOMIC_RELAXED);
}
static void set_count(void *user, int32_t n) {
    (void)user;
    __atomic_store_n(&pool_count, n, __ATOMIC_RELAXED);
}
static int32_t read_count(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input;
    *(int32_t *)output = get_count(NULL);
    return 0;
}

static int32_t count_inside(uint32_t capabilities, int32_t inner) {
    struct fake fake = FAKE;
    pb_backend_vtable vtable = fake_vtable();
    int32_t counts[4];
    pb_scope scope = 0;
    vtable.capabilities = capabilities;
    CHECK_OK(pb_register_backend("fake", &vtable, &fake, 0));
    CHECK_OK(pb_push_backend("fake", 2, inner, NULL, &scope));
    CHECK_INT(inner, fake.open_inner);
    CHECK_OK(pb_parallel_map(read_count, NULL, 4, NULL, 0, counts, sizeof *counts, NULL));
    CHECK_INT(MANY, get_count(NULL));
    fake_end(scope);
    return counts[3];
}

TEST(a_backend_that_applies_inner_limits_is_left_to_it) {
    CHECK_OK(pb_register_thread_pool("blas", "vtable-slots", get_count, set_count, NULL, "process"));
    CHECK_INT(5, count_inside(PB_BACKEND_SHARES_MEMORY, 5));
    CHECK_INT(MANY, count_inside(PB_BACKEND_SHARES_MEMORY | PB_BACKEND_INNER_LIMITS, 5));
    CHECK(count_inside(PB_BACKEND_SHARES_MEMORY, 0) < MANY); /* the share of a worker */
    CHECK_INT(MANY, count_inside(PB_BACKEND_SHARES_MEMORY | PB_BACKEND_INNER_LIMITS, 0));
}

TEST(a_map_that_needs_shared_memory_leaves_a_backend_without_it) {
    struct fake fake = FAKE;
    pb_backend_vtable vtable = fake_vtable();
    vtable.capabilities = 0;
    CHECK_OK(pb_register_backend("fake", &vtable, &fake, 0));
    const pb_scope scope = fake_push(2);
    int32_t count = 0;
    pb_map_options options = {.struct_size = sizeof options};
    options.flags = PB_REQUIRE_SHAREDMEM;
    CHECK_OK(pb_parallel_map(count_task, &count, 30, NULL, 0, NULL, 0, &options));
    CHECK_INT(30, count);
    CHECK_INT(0, fake.runs);
    CHECK_STR("fake", pb_current_backend());
    fake_end(scope);
    /* One that has it keeps the map. */
    fake_register(&fake);
    const pb_scope shared = fake_push(2);
    CHECK_OK(pb_parallel_map(count_task, &count, 30, NULL, 0, NULL, 0, &options));
    CHECK_INT(1, fake.runs);
    fake_end(shared);
}

/* A worker elsewhere is a level of its own even where it is the only one; a lone one here is a plain loop. */
TEST(one_worker_is_a_plain_loop_only_in_shared_memory) {
    for (uint32_t capabilities = 0; capabilities <= PB_BACKEND_SHARES_MEMORY; ++capabilities) {
        struct fake fake = FAKE;
        pb_backend_vtable vtable = fake_vtable();
        sight sights[3];
        vtable.capabilities = capabilities;
        CHECK_OK(pb_register_backend("fake", &vtable, &fake, 0));
        const pb_scope scope = fake_push(1);
        CHECK_OK(map_look(3, sights));
        for (int i = 0; i < 3; ++i) {
            CHECK_INT(capabilities == 0, sights[i].level);
            CHECK_INT(0, sights[i].worker);
            CHECK_STR(capabilities == 0 ? "threading" : "fake", sights[i].backend);
        }
        fake_end(scope);
    }
}

int main(void) {
    RUN(a_backend_without_an_active_worker_runs_nothing);
    RUN(a_backend_may_have_fewer_or_more_workers_than_asked_for);
    RUN(a_backend_may_have_workers_that_are_not_this_machines_cpus);
    RUN(a_backend_hears_of_a_shutdown);
    RUN(a_backend_may_choose_where_nested_maps_run);
    RUN(a_backend_may_keep_nested_maps_to_itself);
    RUN(an_unknown_nested_backend_is_the_error_of_the_nested_map);
    RUN(a_backend_that_applies_inner_limits_is_left_to_it);
    RUN(a_map_that_needs_shared_memory_leaves_a_backend_without_it);
    RUN(one_worker_is_a_plain_loop_only_in_shared_memory);
    CHECK_OK(pb_shutdown());
    return check_result();
}
