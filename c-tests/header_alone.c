#include <parallel_backend.h>
/* The header needs nothing before it, may come twice, and gives the same in a C99 and a C++17 file of one
 * program (the other one is header_alone.cpp). */
#include <parallel_backend.h>

#include "check.h"

const char *version_seen_by_cpp(void);
int version_number_seen_by_cpp(void);

TEST(c_and_cpp_see_the_same_version) {
    CHECK_STR(version_seen_by_cpp(), pb_version());
    CHECK_INT(PB_VERSION_NUMBER, version_number_seen_by_cpp());
}

TEST(the_header_is_that_of_the_library) {
    char version[32];
    snprintf(version, sizeof version, "%d.%d.%d", PB_VERSION_MAJOR, PB_VERSION_MINOR, PB_VERSION_PATCH);
    CHECK_STR(version, pb_version());
    CHECK_INT(PB_VERSION_MAJOR * 10000 + PB_VERSION_MINOR * 100 + PB_VERSION_PATCH, PB_VERSION_NUMBER);
}

int main(void) {
    RUN(c_and_cpp_see_the_same_version);
    RUN(the_header_is_that_of_the_library);
    return 0;
}
