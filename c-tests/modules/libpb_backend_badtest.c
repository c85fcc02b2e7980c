/* A plugin that cannot start. */
#include <parallel_backend.h>

pb_status pb_plugin_init(void);

pb_status pb_plugin_init(void) { return pb_backend_fail(PB_ERR_BACKEND_UNAVAILABLE, "no licence was found"); }
