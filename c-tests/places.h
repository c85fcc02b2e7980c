/* places.h: every backend that tests of pb_join meet, with numbers of workers. */
#ifndef PLACES_H
#define PLACES_H

#include <stdint.h>

static const struct place {
    const char *backend;
    int32_t n_jobs;
} places[] = {{"sequential", 1}, {"threading", 1}, {"threading", 2}, {"threading", 3}, {"threading", 16}};

#define ON_EACH_PLACE(p)                                                                                     \
    for (const struct place *p = places; p < places + sizeof places / sizeof *places; p++)

#endif
