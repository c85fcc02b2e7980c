/* fake_backend.h: a backend that does as a test tells it, and notes what is done with it. */
#ifndef FAKE_BACKEND_H
#define FAKE_BACKEND_H

#include "check.h"
#include <pthread.h>

struct fake {
    /* What it does. */
    pb_status open_status;
    const char *open_text; /* of the error that open returns */
    int32_t workers;       /* that effective_n_jobs says, if says_workers */
    int32_t says_workers;
    const char *nested;
    pb_status (*run)(struct fake *fake, pb_job *job); /* NULL: fake_run_all */
    /* What was done with it. */
    int32_t open_n_jobs, open_inner, nested_level, runs;
    int32_t had_params;
    char params[64];
    char log[64]; /* a letter for each call, in order: o open, c close, d destroy */
    pthread_mutex_t lock;
};
#define FAKE                                                                                                 \
    { .lock = PTHREAD_MUTEX_INITIALIZER }

static inline void fake_log(struct fake *fake, char letter) {
    pthread_mutex_lock(&fake->lock);
    const size_t length = strlen(fake->log);
    if (length + 1 < sizeof fake->log)
        fake->log[length] = letter;
    pthread_mutex_unlock(&fake->lock);
}

/* The session is its state's address with an offset: each slot sees that it gets the right pointers. */
static inline void *fake_session(struct fake *fake) { return (char *)fake + 1; }

static inline pb_status fake_open(void *state, int32_t n_jobs, int32_t inner, const char *params,
                                  void **session) {
    struct fake *fake = state;
    fake->open_n_jobs = n_jobs;
    fake->open_inner = inner;
    fake->had_params = params != NULL;
    snprintf(fake->params, sizeof fake->params, "%s", params != NULL ? params : "");
    if (fake->open_status != PB_OK)
        return fake->open_text != NULL ? pb_backend_fail(fake->open_status, fake->open_text)
                                       : fake->open_status;
    fake_log(fake, 'o');
    *session = fake_session(fake);
    return PB_OK;
}

static inline void fake_close(void *state, void *session) {
    CHECK(session == fake_session(state));
    fake_log(state, 'c');
}

static inline int32_t fake_effective_n_jobs(void *state, void *session, int32_t n_jobs) {
    struct fake *fake = state;
    CHECK(session == fake_session(fake));
    return fake->says_workers ? fake->workers : n_jobs;
}

/* All items, one after the other, on this thread. */
static inline pb_status fake_run_all(struct fake *fake, pb_job *job) {
    (void)fake;
    pb_chunk chunk;
    pb_status status;
    while ((status = pb_job_claim(job, &chunk)) == PB_OK)
        CHECK_OK(pb_job_run(job, &chunk));
    CHECK_INT(PB_DONE, status);
    return PB_OK;
}

static inline pb_status fake_run(void *state, void *session, pb_job *job) {
    struct fake *fake = state;
    CHECK(session == fake_session(fake));
    __atomic_fetch_add(&fake->runs, 1, __ATOMIC_RELAXED);
    return fake->run != NULL ? fake->run(fake, job) : fake_run_all(fake, job);
}

static inline const char *fake_nested_backend(void *state, void *session, int32_t level) {
    struct fake *fake = state;
    CHECK(session == fake_session(fake));
    fake->nested_level = level;
    return fake->nested;
}

static inline void fake_destroy(void *state) { fake_log(state, 'd'); }

static inline pb_backend_vtable fake_vtable(void) {
    const pb_backend_vtable vtable = {
        .struct_size = sizeof vtable,
        .abi_version = PB_BACKEND_ABI_VERSION,
        .capabilities = PB_BACKEND_SHARES_MEMORY,
        .open = fake_open,
        .close = fake_close,
        .effective_n_jobs = fake_effective_n_jobs,
        .run = fake_run,
        .nested_backend = fake_nested_backend,
        .destroy = fake_destroy,
    };
    return vtable;
}

/* Registers it as "fake". */
static inline void fake_register(struct fake *fake) {
    const pb_backend_vtable vtable = fake_vtable();
    CHECK_OK(pb_register_backend("fake", &vtable, fake, 0));
}

/* Opens a scope with it. */
static inline pb_scope fake_push(int32_t n_jobs) {
    pb_scope scope = 0;
    CHECK_OK(pb_push_backend("fake", n_jobs, 0, NULL, &scope));
    return scope;
}

/* Ends both. */
static inline void fake_end(pb_scope scope) {
    CHECK_OK(pb_pop_backend(scope));
    CHECK_OK(pb_unregister_backend("fake"));
}

/* A task that counts itself in ctx, an int32_t. */
static inline int32_t count_task(void *ctx, size_t index, const void *input, void *output) {
    (void)index, (void)input, (void)output;
    __atomic_fetch_add((int32_t *)ctx, 1, __ATOMIC_RELAXED);
    return 0;
}

/* A map of n such tasks; how it ended. */
static inline pb_status count_map(size_t n, int32_t *count) {
    *count = 0;
    return pb_parallel_map(count_task, count, n, NULL, 0, NULL, 0, NULL);
}

/* The map runs, all of it. */
static inline void check_map_works(void) {
    int32_t count = 0;
    CHECK_OK(count_map(50, &count));
    CHECK_INT(50, count);
}

#endif
