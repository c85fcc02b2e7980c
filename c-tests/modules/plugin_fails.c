/* A plugin that cannot start: it returns what the environment variable PLUGIN_STATUS says, with the text
 * PLUGIN_TEXT if there is one. */
#include <parallel_backend.h>
#include <stdlib.h>

pb_status pb_plugin_init(void);
pb_status pb_plugin_init(void) {
    const char *text = getenv("PLUGIN_TEXT");
    const pb_status status = atoi(getenv("PLUGIN_STATUS"));
    return text != NULL ? pb_backend_fail(status, text) : status;
}
