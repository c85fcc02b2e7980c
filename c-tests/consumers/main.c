/* What a user's program needs at least: the header is found, the library links and starts, and they fit. */
#include <parallel_backend.h>
#include <stdio.h>

int main(void) {
    printf("C: header %d, library %s\n", PB_VERSION_NUMBER, pb_version());
    int major = -1, minor = -1, patch = -1;
    sscanf(pb_version(), "%d.%d.%d", &major, &minor, &patch);
    return major * 10000 + minor * 100 + patch == PB_VERSION_NUMBER ? 0 : 1;
}
