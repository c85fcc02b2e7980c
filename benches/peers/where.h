/* For peer_version: the file that a function of the runtime was loaded from. */
#ifndef BENCH_WHERE_H
#define BENCH_WHERE_H

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

static inline const char *name_and_file(const char *name, void *function) {
    static char text[PATH_MAX + 128];
    char path[PATH_MAX];
    Dl_info info;
    if (!dladdr(function, &info) || !realpath(info.dli_fname, path))
        return name;
    snprintf(text, sizeof text, "%s, %s", name, path);
    return text;
}

#endif
