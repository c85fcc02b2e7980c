/* Registering a backend: its name, its table, and tables of other versions. */
#include "abi/backend_v1.h"
#include "fake_backend.h"

static void check_unknown(const char *name) {
    pb_scope scope = 0;
    CHECK_STATUS(pb_push_backend(name, 2, 0, NULL, &scope), PB_ERR_UNKNOWN_BACKEND);
    CHECK_TEXT(name);
}

/* Nothing was kept of what was refused. */
static void check_refused(const struct fake *fake) {
    check_unknown("fake");
    CHECK_STR("", fake->log);
}

/* ---- names ---- */

TEST(a_registered_backend_is_listed_and_used) {
    struct fake fake = FAKE;
    fake_register(&fake);
    char names[256];
    CHECK_OK(pb_backend_names(names, sizeof names, NULL));
    CHECK_STR("dask,fake,loky,multiprocessing,ray,sequential,threading", names);
    const pb_scope scope = fake_push(2);
    CHECK_STR("fake", pb_current_backend());
    check_map_works();
    CHECK_INT(1, fake.runs);
    fake_end(scope);
    CHECK_OK(pb_backend_names(names, sizeof names, NULL));
    CHECK_STR("dask,loky,multiprocessing,ray,sequential,threading", names);
}

TEST(a_name_is_given_once_until_it_is_free_again) {
    struct fake first = FAKE, second = FAKE;
    const pb_backend_vtable vtable = fake_vtable();
    fake_register(&first);
    CHECK_STATUS(pb_register_backend("fake", &vtable, &second, 0), PB_ERR_EXISTS);
    CHECK_TEXT("fake");
    CHECK_TEXT("pb_unregister_backend");
    fake_end(fake_push(2));
    CHECK_STR("ocd", first.log);
    CHECK_STR("", second.log);
    fake_register(&second);
    fake_end(fake_push(2));
    CHECK_STR("ocd", first.log);
    CHECK_STR("ocd", second.log);
    CHECK_STATUS(pb_register_backend("threading", &vtable, &second, 0), PB_ERR_EXISTS);
    CHECK_STATUS(pb_register_backend("sequential", &vtable, &second, 0), PB_ERR_EXISTS);
}

TEST(a_name_is_1_to_64_plain_characters) {
    struct fake fake = FAKE;
    const pb_backend_vtable vtable = fake_vtable();
    char longest[66];
    memset(longest, 'x', sizeof longest);
    longest[65] = '\0';
    const char *const bad[] = {"", " ", "a b", "a,b", "a;b", "a/b", "a=b", "caf\xc3\xa9", "a\n", longest};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; ++i) {
        CHECK_STATUS(pb_register_backend(bad[i], &vtable, &fake, 0), PB_ERR_INVALID_ARGUMENT);
        CHECK_TEXT("letters, digits");
    }
    CHECK_STATUS(pb_register_backend("\xff", &vtable, &fake, 0), PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("UTF-8");
    CHECK_STR("", fake.log);
    longest[64] = '\0';
    const char *const good[] = {"a", "My_Backend-2.0", "9", longest};
    for (size_t i = 0; i < sizeof good / sizeof *good; ++i) {
        CHECK_OK(pb_register_backend(good[i], &vtable, &fake, 0));
        CHECK_OK(pb_unregister_backend(good[i]));
    }
}

/* ---- arguments ---- */

TEST(name_and_table_are_required) {
    struct fake fake = FAKE;
    const pb_backend_vtable vtable = fake_vtable();
    CHECK_STATUS(pb_register_backend(NULL, &vtable, &fake, 0), PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("name is NULL");
    CHECK_STATUS(pb_register_backend("fake", NULL, &fake, 0), PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("pb_backend_vtable is NULL");
    check_refused(&fake);
}

TEST(run_is_required) {
    struct fake fake = FAKE;
    pb_backend_vtable vtable = fake_vtable();
    vtable.run = NULL;
    CHECK_STATUS(pb_register_backend("fake", &vtable, &fake, 0), PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("'fake'");
    CHECK_TEXT("run is NULL");
    check_refused(&fake);
}

static pb_status run_bare(void *state, void *session, pb_job *job) {
    CHECK(session == NULL);
    return fake_run_all(state, job);
}

TEST(all_other_slots_are_optional) {
    struct fake fake = FAKE;
    const pb_backend_vtable vtable = {.struct_size = sizeof vtable,
                                      .abi_version = PB_BACKEND_ABI_VERSION,
                                      .capabilities = PB_BACKEND_SHARES_MEMORY,
                                      .run = run_bare};
    CHECK_OK(pb_register_backend("fake", &vtable, &fake, 0));
    const pb_scope scope = fake_push(3);
    CHECK_INT(3, pb_effective_n_jobs(0)); /* the number asked for */
    check_map_works();
    fake_end(scope);
}

TEST(unknown_capabilities_and_flags_are_refused) {
    struct fake fake = FAKE;
    pb_backend_vtable vtable = fake_vtable();
    vtable.capabilities = 0x80000001u;
    CHECK_STATUS(pb_register_backend("fake", &vtable, &fake, 0), PB_ERR_UNSUPPORTED);
    CHECK_TEXT("capabilities 0x80000001");
    vtable.capabilities = 0;
    CHECK_STATUS(pb_register_backend("fake", &vtable, &fake, 0x6), PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("flags 0x6");
    check_refused(&fake);
}

TEST(the_table_is_copied) {
    struct fake fake = FAKE;
    pb_backend_vtable vtable = fake_vtable();
    CHECK_OK(pb_register_backend("fake", &vtable, &fake, 0));
    memset(&vtable, 0xa5, sizeof vtable);
    const pb_scope scope = fake_push(2);
    check_map_works();
    fake_end(scope);
    CHECK_STR("ocd", fake.log);
}

/* ---- tables of other versions ---- */

TEST(a_table_that_is_too_small_is_refused) {
    struct fake fake = FAKE;
    pb_backend_vtable vtable = fake_vtable();
    const size_t sizes[] = {0,
                            1,
                            sizeof(size_t),
                            offsetof(pb_backend_vtable, capabilities),
                            offsetof(pb_backend_vtable, open),
                            offsetof(pb_backend_vtable, max_n_jobs) - 1};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; ++i) {
        vtable.struct_size = sizes[i];
        CHECK_STATUS(pb_register_backend("fake", &vtable, &fake, 0), PB_ERR_ABI);
        char text[64];
        snprintf(text, sizeof text, "struct_size of pb_backend_vtable is %zu", sizes[i]);
        CHECK_TEXT(text);
        CHECK_TEXT("sizeof(pb_backend_vtable)");
    }
    check_refused(&fake);
}

/* A table that a newer header made: what it has in addition is not looked at. */
TEST(the_tail_of_a_larger_table_is_ignored) {
    struct fake fake = FAKE;
    struct {
        pb_backend_vtable known;
        unsigned char tail[96];
    } larger;
    memset(&larger, 0xa5, sizeof larger);
    larger.known = fake_vtable();
    larger.known.struct_size = sizeof larger;
    CHECK_OK(pb_register_backend("fake", &larger.known, &fake, 0));
    const pb_scope scope = fake_push(2);
    check_map_works();
    fake_end(scope);
    CHECK_STR("ocd", fake.log);
}

/* Only the head of such a table is read: the rest may mean anything. */
static void check_version_is_refused(uint32_t version, size_t struct_size, const char *advice) {
    pb_backend_vtable vtable;
    memset(&vtable, 0xa5, sizeof vtable);
    vtable.struct_size = struct_size;
    vtable.abi_version = version;
    CHECK_STATUS(pb_register_backend("fake", &vtable, NULL, 0), PB_ERR_ABI);
    char text[64];
    snprintf(text, sizeof text, "abi_version %u", (unsigned)version);
    CHECK_TEXT(text);
    CHECK_TEXT(advice);
    check_unknown("fake");
}

TEST(a_newer_table_asks_for_a_newer_library) {
    check_version_is_refused(PB_BACKEND_ABI_VERSION + 1, sizeof(pb_backend_vtable),
                             "update parallel_backend");
    check_version_is_refused(UINT32_MAX, 1000, "update parallel_backend");
}

TEST(an_older_table_asks_for_a_newer_backend) {
    check_version_is_refused(0, sizeof(pb_backend_vtable), "compile the backend anew");
    check_version_is_refused(0, 24, "compile the backend anew"); /* that it is smaller, too, is no news */
}

/* ---- a backend that was compiled against version 1 ---- */

static int32_t v1_opens, v1_closes, v1_destroys;

static int32_t v1_open(void *state, int32_t n_jobs, int32_t inner, const char *params, void **session) {
    (void)n_jobs, (void)inner, (void)params;
    ++v1_opens;
    *session = state;
    return BACKEND_V1_OK;
}
static void v1_close(void *state, void *session) {
    CHECK(session == state);
    ++v1_closes;
}
static int32_t v1_workers(void *state, void *session, int32_t n_jobs) {
    (void)state, (void)session;
    return n_jobs > 2 ? 2 : n_jobs;
}
/* As the linker of that time bound the names: by name only. */
static int32_t v1_run(void *state, void *session, backend_v1_job *job) {
    int32_t (*claim)(backend_v1_job *, backend_v1_chunk *) =
        (int32_t(*)(backend_v1_job *, backend_v1_chunk *))pb_job_claim;
    int32_t (*run)(backend_v1_job *, const backend_v1_chunk *) =
        (int32_t(*)(backend_v1_job *, const backend_v1_chunk *))pb_job_run;
    backend_v1_chunk chunk;
    int32_t status;
    (void)state, (void)session;
    while ((status = claim(job, &chunk)) == BACKEND_V1_OK)
        if ((status = run(job, &chunk)) != BACKEND_V1_OK)
            return status;
    return status == BACKEND_V1_DONE ? BACKEND_V1_OK : status;
}
static const char *v1_nested(void *state, void *session, int32_t level) {
    (void)state, (void)session, (void)level;
    return "sequential";
}
static void v1_destroy(void *state) {
    (void)state;
    ++v1_destroys;
}

static int32_t tell_backend(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index, (void)input;
    snprintf(output, 32, "%s", pb_current_backend());
    return 0;
}

TEST(a_backend_of_version_1_works_for_ever) {
    const backend_v1_vtable vtable = {sizeof vtable,
                                      BACKEND_V1_ABI_VERSION,
                                      BACKEND_V1_SHARES_MEMORY,
                                      v1_open,
                                      v1_close,
                                      v1_workers,
                                      v1_run,
                                      v1_nested,
                                      v1_destroy};
    int32_t state = 0;
    CHECK_OK(pb_register_backend("v1", (const pb_backend_vtable *)&vtable, &state, BACKEND_V1_MAKE_DEFAULT));
    CHECK_STR("v1", pb_current_backend());
    CHECK_INT(2, pb_effective_n_jobs(7));
    char names[20][32];
    pb_map_options options = {.struct_size = sizeof options};
    options.n_jobs = 2;
    CHECK_OK(pb_parallel_map(tell_backend, NULL, 20, NULL, 0, names, sizeof *names, &options));
    for (int i = 0; i < 20; ++i)
        CHECK_STR("sequential", names[i]);
    CHECK_OK(pb_unregister_backend("v1"));
    CHECK_INT(1, v1_opens);
    CHECK_INT(1, v1_closes);
    CHECK_INT(1, v1_destroys);
}

int main(void) {
    RUN(a_registered_backend_is_listed_and_used);
    RUN(a_name_is_given_once_until_it_is_free_again);
    RUN(a_name_is_1_to_64_plain_characters);
    RUN(name_and_table_are_required);
    RUN(run_is_required);
    RUN(all_other_slots_are_optional);
    RUN(unknown_capabilities_and_flags_are_refused);
    RUN(the_table_is_copied);
    RUN(a_table_that_is_too_small_is_refused);
    RUN(the_tail_of_a_larger_table_is_ignored);
    RUN(a_newer_table_asks_for_a_newer_library);
    RUN(an_older_table_asks_for_a_newer_backend);
    RUN(a_backend_of_version_1_works_for_ever);
    CHECK_OK(pb_shutdown());
    return check_result();
}
