/* Which backend a map runs on: what was chosen, what the call prefers, what it requires. */
#include "sync.h"

#include <unistd.h>

/* Two backends in C that run everything on the calling thread and count their maps: one shares memory, one
 * does not. */
static size_t maps_here, maps_afar;

static pb_status run_all(void *state, void *session, pb_job *job) {
    (void)session;
    ++*(size_t *)state;
    pb_chunk chunk;
    while (pb_job_claim(job, &chunk) == PB_OK)
        CHECK_OK(pb_job_run(job, &chunk));
    return PB_OK;
}

typedef struct sight {
    int32_t level, process;
} sight;

static int32_t look(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input;
    *(sight *)output = (sight){pb_nesting_level(), (int32_t)getpid()};
    return 0;
}

/* The backend that a map with these flags runs on here. */
static const char *where(uint32_t flags) {
    const size_t here = maps_here, afar = maps_afar;
    sight seen[4];
    pb_map_options options = {.struct_size = sizeof options, .n_jobs = 2, .flags = flags};
    CHECK_OK(pb_parallel_map(look, NULL, 4, NULL, 0, seen, sizeof *seen, &options));
    if (maps_here != here)
        return "here";
    if (maps_afar != afar)
        return "afar";
    if (seen[0].process != (int32_t)getpid())
        return "processes";
    return seen[0].level > pb_nesting_level() ? "threading" : "sequential";
}

/* joblib: test_parallel.py::test_backend_hinting_and_constraints and ..._with_custom_backends. joblib refuses
 * to replace a backend that was named in the call itself; here calls name none, so `require` always replaces.
 */
TEST(a_preference_counts_where_nothing_was_chosen_and_a_requirement_always) {
    static const uint32_t flags[] = {0, PB_PREFER_THREADS, PB_PREFER_PROCESSES, PB_REQUIRE_SHAREDMEM,
                                     PB_PREFER_THREADS | PB_REQUIRE_SHAREDMEM};
    static const struct {
        const char *chosen, *expected[5];
    } table[] = {
        {NULL, {"threading", "threading", "processes", "threading", "threading"}},
        {"threading", {"threading", "threading", "threading", "threading", "threading"}},
        {"sequential", {"sequential", "sequential", "sequential", "sequential", "sequential"}},
        {"here", {"here", "here", "here", "here", "here"}},
        {"afar", {"afar", "afar", "afar", "threading", "threading"}},
        {"multiprocessing", {"processes", "processes", "processes", "threading", "threading"}},
    };
    for (size_t row = 0; row < sizeof table / sizeof *table; row++) {
        pb_scope scope = use_backend(table[row].chosen, 2);
        for (size_t f = 0; f < 5; f++)
            CHECK_STR(table[row].expected[f], where(flags[f]));
        CHECK_OK(pb_pop_backend(scope));
    }
}

TEST(a_process_default_is_a_choice_too) {
    CHECK_OK(pb_set_default_backend("sequential", 2, 0, NULL));
    CHECK_STR("sequential", where(PB_PREFER_THREADS));
    CHECK_OK(pb_set_default_backend("afar", 2, 0, NULL));
    CHECK_STR("afar", where(PB_PREFER_THREADS));
    CHECK_STR("threading", where(PB_REQUIRE_SHAREDMEM));
    CHECK_OK(pb_set_default_backend(NULL, 0, 0, NULL));
    CHECK_STR("threading", where(0));
}

static int32_t prefer_at_depth_2(void *ctx, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    if (ctx != NULL) {
        pb_map_options options = {.struct_size = sizeof options, .n_jobs = 2};
        return pb_parallel_map(prefer_at_depth_2, NULL, 1, NULL, 0, NULL, 0, &options);
    }
    CHECK_STR("sequential", where(0)); /* the nesting rule, which is nobody's choice */
    CHECK_STR("threading", where(PB_PREFER_THREADS));
    /* A preference must not multiply processes: inside tasks the rule stands. */
    CHECK_STR("sequential", where(PB_PREFER_PROCESSES));
    pb_scope scope = use_backend("sequential", 2);
    CHECK_STR("sequential", where(PB_PREFER_THREADS));
    CHECK_OK(pb_pop_backend(scope));
    return 0;
}

TEST(inside_tasks_the_nesting_rule_is_not_a_choice) {
    pb_scope scope = use_backend("threading", 2);
    CHECK_OK(pb_parallel_map(prefer_at_depth_2, &scope, 1, NULL, 0, NULL, 0, NULL));
    CHECK_OK(pb_pop_backend(scope));
}

static int32_t twice(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index;
    *(int *)output = 2 * *(const int *)input;
    return 0;
}

/* joblib: test_parallel.py::test_backend_hinting_always_running */
TEST(whatever_is_preferred_the_results_are_right) {
    const uint32_t flags[] = {0, PB_PREFER_THREADS, PB_PREFER_PROCESSES, PB_REQUIRE_SHAREDMEM};
    for (size_t f = 0; f < 4; f++)
        for (int32_t n_jobs = 1; n_jobs <= 2; n_jobs++) {
            int in[5] = {1, 2, 3, 4, 5}, out[5] = {0};
            pb_map_options options = {.struct_size = sizeof options, .n_jobs = n_jobs, .flags = flags[f]};
            CHECK_OK(pb_parallel_map(twice, NULL, 5, in, sizeof *in, out, sizeof *out, &options));
            for (int i = 0; i < 5; i++)
                CHECK_INT(2 * in[i], out[i]);
        }
}

static int32_t none(void *state, void *session, int32_t n_jobs) {
    (void)state, (void)session, (void)n_jobs;
    return 0;
}

/* joblib: test_parallel.py::test_zero_worker_backend */
TEST(a_backend_without_workers_is_an_error) {
    static size_t maps;
    const pb_backend_vtable table = {.struct_size = sizeof table,
                                     .abi_version = PB_BACKEND_ABI_VERSION,
                                     .effective_n_jobs = none,
                                     .run = run_all};
    REQUIRE(pb_register_backend("empty", &table, &maps, 0) == PB_OK);
    pb_scope scope = use_backend("empty", 2);
    CHECK_STATUS(pb_parallel_map(look, NULL, 4, NULL, 0, NULL, 0, NULL), PB_ERR_BACKEND_UNAVAILABLE);
    CHECK_TEXT("'empty' has no active worker");
    CHECK_INT(PB_ERR_BACKEND_UNAVAILABLE, pb_effective_n_jobs(0));
    CHECK_OK(pb_pop_backend(scope));
    CHECK_OK(pb_unregister_backend("empty"));
    CHECK_INT(0, maps);
}

int main(void) {
    /* The environment chooses nothing here. */
    unsetenv("PB_BACKEND");
    unsetenv("PB_N_JOBS");
    pb_backend_vtable table = {.struct_size = sizeof table,
                               .abi_version = PB_BACKEND_ABI_VERSION,
                               .capabilities = PB_BACKEND_SHARES_MEMORY,
                               .run = run_all};
    REQUIRE(pb_register_backend("here", &table, &maps_here, 0) == PB_OK);
    table.capabilities = 0;
    REQUIRE(pb_register_backend("afar", &table, &maps_afar, 0) == PB_OK);
    RUN(a_preference_counts_where_nothing_was_chosen_and_a_requirement_always);
    RUN(a_process_default_is_a_choice_too);
    RUN(inside_tasks_the_nesting_rule_is_not_a_choice);
    RUN(whatever_is_preferred_the_results_are_right);
    RUN(a_backend_without_workers_is_an_error);
    CHECK_OK(pb_shutdown());
    return check_result();
}
