/* The version of another library, preloaded into workers. */
__attribute__((visibility("default"))) const char *pb_version(void);
const char *pb_version(void) { return "9.9.9"; }
