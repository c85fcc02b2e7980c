#include <parallel_backend.h>
// See header_alone.c.
#include <parallel_backend.h>

extern "C" const char *version_seen_by_cpp() { return pb_version(); }
extern "C" int version_number_seen_by_cpp() { return PB_VERSION_NUMBER; }
