/* counting.h: a backend that runs everything on the calling thread and counts how its slots are called. */
#ifndef COUNTING_H
#define COUNTING_H

#include "check.h"

struct counting {
    int opened, closed, ran, destroyed;
    int32_t n_jobs; /* of the last session that was opened */
};

static inline pb_status counting_open(void *state, int32_t n_jobs, int32_t inner_max_num_threads,
                                      const char *params, void **session) {
    (void)inner_max_num_threads;
    struct counting *counts = state;
    if (params != NULL)
        return pb_backend_fail(PB_ERR_INVALID_ARGUMENT, "no parameters are counted");
    counts->opened++;
    counts->n_jobs = n_jobs;
    *session = state;
    return PB_OK;
}

static inline void counting_close(void *state, void *session) {
    CHECK(session == state);
    ((struct counting *)state)->closed++;
}

static inline pb_status counting_run(void *state, void *session, pb_job *job) {
    CHECK(session == state);
    ((struct counting *)state)->ran++;
    pb_chunk chunk;
    pb_status status;
    while ((status = pb_job_claim(job, &chunk)) == PB_OK)
        CHECK_OK(pb_job_run(job, &chunk));
    return status == PB_DONE ? PB_OK : status;
}

static inline void counting_destroy(void *state) { ((struct counting *)state)->destroyed++; }

/* Registers the backend `name`; `counts` must outlive it. */
static inline void register_counting(const char *name, struct counting *counts, uint32_t flags) {
    pb_backend_vtable table = {.struct_size = sizeof table};
    table.abi_version = PB_BACKEND_ABI_VERSION;
    table.capabilities = PB_BACKEND_SHARES_MEMORY;
    table.open = counting_open;
    table.close = counting_close;
    table.run = counting_run;
    table.destroy = counting_destroy;
    CHECK_OK(pb_register_backend(name, &table, counts, flags));
}

#endif
