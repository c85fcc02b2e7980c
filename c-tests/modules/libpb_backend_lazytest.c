/* A plugin that is found by its name alone: the backend "lazytest" is one plain loop. */
#include <parallel_backend.h>

static pb_status run(void *state, void *session, pb_job *job) {
    (void)state, (void)session;
    pb_chunk chunk;
    pb_status status;
    while ((status = pb_job_claim(job, &chunk)) == PB_OK)
        if ((status = pb_job_run(job, &chunk)) != PB_OK)
            break;
    return status == PB_DONE ? PB_OK : status;
}

pb_status pb_plugin_init(void);

pb_status pb_plugin_init(void) {
    pb_backend_vtable table = {.struct_size = sizeof table};
    table.abi_version = PB_BACKEND_ABI_VERSION;
    table.capabilities = PB_BACKEND_SHARES_MEMORY;
    table.run = run;
    return pb_register_backend("lazytest", &table, NULL, 0);
}
