/* A copy of a file, under another name. */
#ifndef COPY_FILE_H
#define COPY_FILE_H

#include "check.h"

#include <stdio.h>

static void copy_file(const char *from, const char *to) {
    FILE *source = fopen(from, "rb"), *target = fopen(to, "wb");
    CHECK(source != NULL && target != NULL);
    char bytes[4096];
    for (size_t n; (n = fread(bytes, 1, sizeof bytes, source)) > 0;)
        CHECK(fwrite(bytes, 1, n, target) == n);
    fclose(source);
    CHECK(fclose(target) == 0);
}

#endif
