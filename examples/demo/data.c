#include "data.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#define FEWEST_ROWS 10

/* Reads an integer of 0..max that `end` follows. Returns what comes after both, or NULL. */
static const char *parse_field(const char *text, long max, char end, long *value) {
    char *rest;
    *value = strtol(text, &rest, 10);
    if (rest == text || *value < 0 || *value > max || *rest != end)
        return NULL;
    return rest + 1;
}

static int parse_row(const char *line, double *x, int32_t *label) {
    long value;
    for (int i = 0; i < FEATURES; i++) {
        line = parse_field(line, 16, ',', &value);
        if (!line)
            return -1;
        x[i] = (double)value / 16;
    }
    if (!parse_field(line, CLASSES - 1, '\0', &value))
        return -1;
    *label = (int32_t)value;
    return 0;
}

static int read_rows(gzFile file, const char *path, digits *out) {
    char line[512];
    for (out->rows = 0; gzgets(file, line, sizeof line); out->rows++) {
        if (out->rows == MAX_ROWS) {
            fprintf(stderr, "%s: more than %d rows\n", path, MAX_ROWS);
            return -1;
        }
        line[strcspn(line, "\r\n")] = '\0';
        if (parse_row(line, out->x[out->rows], &out->label[out->rows])) {
            fprintf(stderr, "%s: line %zu is not %d features and a label\n", path, out->rows + 1, FEATURES);
            return -1;
        }
    }
    int error;
    const char *text = gzerror(file, &error);
    if (error != Z_OK && error != Z_STREAM_END) {
        fprintf(stderr, "%s: %s\n", path, text);
        return -1;
    }
    if (out->rows < FEWEST_ROWS) {
        fprintf(stderr, "%s: fewer than %d rows\n", path, FEWEST_ROWS);
        return -1;
    }
    return 0;
}

int digits_read(const char *path, digits *out) {
    gzFile file = gzopen(path, "rb"); /* reads plain files as well */
    if (!file) {
        perror(path);
        return -1;
    }
    int failed = read_rows(file, path, out);
    gzclose(file);
    return failed;
}
