/* A library that is no plugin. */
int plugin_without_entry(void);
int plugin_without_entry(void) { return 1; }
