/* The conformance suite as a shared library, since the workers of a cluster can have tasks from such only.
 * Its program is engine_conformance.c. */
#define main conformance_main
#include "../conformance.c"
