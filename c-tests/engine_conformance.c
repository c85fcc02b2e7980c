/* Runs the conformance suite out of a shared library: engine_conformance BACKEND [OPTIONS], as conformance.c
 * says. */
#include "check.h"

#include <dlfcn.h>

int main(int argc, char **argv) {
    CHECK_INT(PB_ABI_VERSION,
              pb_abi_version()); /* the program has the library, and the suite finds it there */
    void *suite = dlopen(MODULE_DIR "/conformance_suite.so", RTLD_NOW);
    if (suite == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    int (*run)(int, char **) = NULL;
    void *symbol = dlsym(suite, "conformance_main");
    memcpy(&run, &symbol, sizeof run);
    CHECK(run != NULL);
    return run(argc, argv);
}
