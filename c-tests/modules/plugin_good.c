/* A plugin as it should be: the backend "from-plugin", a loop on the calling thread. */
#include <parallel_backend.h>

static pb_status run(void *state, void *session, pb_job *job) {
    pb_chunk chunk;
    pb_status status;
    (void)state, (void)session;
    while ((status = pb_job_claim(job, &chunk)) == PB_OK)
        if ((status = pb_job_run(job, &chunk)) != PB_OK)
            return status;
    return status == PB_DONE ? PB_OK : status;
}

pb_status pb_plugin_init(void);
pb_status pb_plugin_init(void) {
    const pb_backend_vtable vtable = {
        .struct_size = sizeof vtable,
        .abi_version = PB_BACKEND_ABI_VERSION,
        .capabilities = PB_BACKEND_SHARES_MEMORY,
        .run = run,
    };
    return pb_register_backend("from-plugin", &vtable, NULL, 0);
}
