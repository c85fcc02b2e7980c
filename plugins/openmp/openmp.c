/* The backend "openmp": a map runs in one OpenMP parallel region, on the threads that the program's own
 * OpenMP loops use.
 *
 * It is for programs that are full of OpenMP already: their team of threads is used again, no second pool is
 * started. It takes no parameters. OMP_PLACES and OMP_PROC_BIND place its threads, OMP_THREAD_LIMIT bounds
 * their number.
 *
 * Inside a parallel region OpenMP makes a new team only up to OMP_MAX_ACTIVE_LEVELS levels, which is 1 unless
 * set. A map beyond that level runs on the thread that called it: it is complete, and pb_effective_n_jobs()
 * says 1 there.
 *
 * GNU OpenMP does not survive fork(): after the first region a forked child must use another backend. */
#include <parallel_backend.h>

#include <omp.h>
#include <stdio.h>
#include <string.h>

/* On Linux and macOS the only symbol that the plugin shows. */
__attribute__((visibility("default"))) pb_status pb_plugin_init(void);

static pb_status open_session(void *state, int32_t n_jobs, int32_t inner_max_num_threads, const char *params,
                              void **session) {
    (void)state, (void)n_jobs, (void)inner_max_num_threads;
    *session = NULL;
    if (params == NULL || *params == '\0') {
        return PB_OK;
    }
    char message[160];
    snprintf(message, sizeof message, "backend openmp: unknown parameter \"%.*s\": it takes none",
             (int)strcspn(params, "=;"), params);
    return pb_backend_fail(PB_ERR_INVALID_ARGUMENT, message);
}

static int32_t effective_n_jobs(void *state, void *session, int32_t n_jobs) {
    (void)state, (void)session;
    if (omp_get_active_level() >= omp_get_max_active_levels()) {
        return 1;
    }
    const int32_t limit = omp_get_thread_limit();
    return n_jobs < limit ? n_jobs : limit;
}

/* One thread's part: chunks until none is left. Ends with PB_DONE, or with the error that stopped it. */
static pb_status run_chunks(pb_job *job) {
    pb_chunk chunk;
    pb_status status = pb_job_claim(job, &chunk);
    while (status == PB_OK) {
        status = pb_job_run(job, &chunk);
        if (status == PB_OK) {
            status = pb_job_claim(job, &chunk);
        }
    }
    return status;
}

/* The team may be smaller than asked for, down to the calling thread: whoever is there claims what is left.
 */
static pb_status run(void *state, void *session, pb_job *job) {
    (void)state, (void)session;
    /* Errors are negative: the minimum is an error if any thread met one, else PB_OK. */
    pb_status status = PB_OK;
#pragma omp parallel num_threads(pb_job_n_jobs(job)) reduction(min : status)
    status = run_chunks(job);
    return status;
}

static const pb_backend_vtable openmp_backend = {
    .struct_size = sizeof(pb_backend_vtable),
    .abi_version = PB_BACKEND_ABI_VERSION,
    .capabilities = PB_BACKEND_SHARES_MEMORY,
    .open = open_session,
    .effective_n_jobs = effective_n_jobs,
    .run = run,
};

pb_status pb_plugin_init(void) { return pb_register_backend("openmp", &openmp_backend, NULL, 0); }
