/* address_space.h: how much a process has, for tests that take the rest away. */
#ifndef ADDRESS_SPACE_H
#define ADDRESS_SPACE_H

#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

/* Leaves this process room for so many bytes more than it has. 0 if that failed;
 * `before` is what it was limited to. */
static inline int leave_room(rlim_t bytes, struct rlimit *before) {
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file == NULL)
        return 0;
    const int is_read = fscanf(file, "%ld", &pages) == 1;
    fclose(file);
    if (!is_read || getrlimit(RLIMIT_AS, before) != 0)
        return 0;
    const rlim_t has = (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE);
    const struct rlimit tight = {has + bytes, before->rlim_max};
    return setrlimit(RLIMIT_AS, &tight) == 0;
}

#endif
