/* The name of another machine, preloaded into workers. Only this backend is told it: MPI itself would look
 * for a way there. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int is_ours(const void *caller) {
    Dl_info info;
    return dladdr(caller, &info) != 0 && strstr(info.dli_fname, "libpb_mpi_") != NULL;
}

__attribute__((visibility("default"))) int gethostname(char *name, size_t size) {
    if (!is_ours(__builtin_return_address(0))) {
        int (*real)(char *, size_t);
        *(void **)&real = dlsym(RTLD_NEXT, "gethostname");
        return real(name, size);
    }
    snprintf(name, size, "another-machine");
    return 0;
}
