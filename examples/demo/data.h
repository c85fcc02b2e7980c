/* The handwritten digits: 8 x 8 grey levels and the digit that each picture shows. */
#ifndef DEMO_DATA_H
#define DEMO_DATA_H

#include <stddef.h>
#include <stdint.h>

#define FEATURES 64
#define CLASSES  10
#define MAX_ROWS 2000

/* One flat block without pointers, so that it can also be sent to a worker process as it is. */
typedef struct digits {
    size_t rows;
    int32_t label[MAX_ROWS];      /* 0..9 */
    double x[MAX_ROWS][FEATURES]; /* grey levels 0..16, divided by 16 */
} digits;

/* Reads a CSV file, gzipped or plain, with the label in its last column. Returns 0, or -1 after a line on
 * stderr. */
int digits_read(const char *path, digits *out);

#endif
