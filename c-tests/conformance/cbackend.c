/* The backend "cbackend": pthreads and nothing else, over the public table. As short as a whole backend can
 * be: it starts threads for every map and joins them, and the calling thread works too. */
#include "conformance.h"

/* Chunks until none is left. What stops it is the result of the map's run. */
static pb_status work(pb_job *job) {
    pb_chunk chunk;
    pb_status status;
    while ((status = pb_job_claim(job, &chunk)) == PB_OK)
        if ((status = pb_job_run(job, &chunk)) != PB_OK)
            return status;
    return status == PB_DONE ? PB_OK : status;
}

static void *helper(void *job) { return work(job) == PB_OK ? NULL : job; }

static pb_status run(void *state, void *session, pb_job *job) {
    (void)state, (void)session;
    const size_t most = (size_t)pb_job_n_jobs(job) - 1;
    pthread_t *threads = calloc(most + 1, sizeof *threads);
    if (threads == NULL)
        return pb_backend_fail(PB_ERR_OUT_OF_MEMORY, "no memory for the list of threads");
    size_t started = 0;
    while (started < most && pthread_create(&threads[started], NULL, helper, job) == 0)
        ++started;
    pb_status status = work(job);
    for (size_t i = 0; i < started; ++i) {
        void *failed = NULL;
        pthread_join(threads[i], &failed);
        if (failed != NULL)
            status = pb_backend_fail(PB_ERR_INTERNAL, "a helper could not run its chunk");
    }
    free(threads);
    return status;
}

/* A session is a block of memory, so that memcheck sees one that is not closed, or closed twice. */
static pb_status open_session(void *state, int32_t n_jobs, int32_t inner_max_num_threads, const char *params,
                              void **session) {
    (void)state, (void)n_jobs, (void)inner_max_num_threads;
    if (params != NULL && *params != '\0') {
        char text[128];
        snprintf(text, sizeof text, "there is no parameter '%.60s'", params);
        return pb_backend_fail(PB_ERR_INVALID_ARGUMENT, text);
    }
    *session = malloc(1);
    return *session != NULL ? PB_OK : pb_backend_fail(PB_ERR_OUT_OF_MEMORY, "no memory for a session");
}

static void close_session(void *state, void *session) {
    (void)state;
    free(session);
}

pb_status register_cbackend(void) {
    static const pb_backend_vtable vtable = {
        .struct_size = sizeof vtable,
        .abi_version = PB_BACKEND_ABI_VERSION,
        .capabilities = PB_BACKEND_SHARES_MEMORY,
        .open = open_session,
        .close = close_session,
        .run = run,
    };
    return pb_register_backend("cbackend", &vtable, NULL, 0);
}
