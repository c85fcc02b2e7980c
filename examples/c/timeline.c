/* A timeline of three maps: rows of a triangle in two large chunks, the same rows in chunks that fit, and
 * maps inside tasks.
 *
 *     timeline run.json && pb-info trace run.json -o run.svg
 */
#include <math.h>
#include <parallel_backend.h>
#include <stdio.h>

enum { ROWS = 64, IMAGES = 6 };

/* Row i of a triangle: its work grows with i. */
int32_t triangle_row(void *ctx, size_t i, const void *input, void *output) {
    (void)ctx, (void)input;
    double sum = 0;
    for (size_t k = 0; k < i * 1000; k++)
        sum += sqrt((double)k);
    *(double *)output = sum;
    return 0;
}

int32_t filter_row(void *image, size_t row, const void *input, void *output) {
    return triangle_row(image, row / 8 + 1, input, output);
}

int32_t filter_image(void *ctx, size_t image, const void *input, void *output) {
    double rows[ROWS];
    const int32_t code = triangle_row(ctx, image, input, output);
    return code != 0 ? code : pb_parallel_map(filter_row, ctx, ROWS, NULL, 0, rows, sizeof *rows, NULL);
}

int main(int argc, char **argv) {
    double outputs[ROWS];
    pb_map_options two_chunks = {.struct_size = sizeof two_chunks};
    two_chunks.batch_size = ROWS / 2;

    pb_scope scope;
    if (pb_push_backend("threading", 2, 0, NULL, &scope) != PB_OK ||
        pb_trace_start(argc > 1 ? argv[1] : "timeline.json") != PB_OK ||
        pb_parallel_map(triangle_row, NULL, ROWS, NULL, 0, outputs, sizeof *outputs, &two_chunks) != PB_OK ||
        pb_parallel_map(triangle_row, NULL, ROWS, NULL, 0, outputs, sizeof *outputs, NULL) != PB_OK ||
        pb_parallel_map(filter_image, NULL, IMAGES, NULL, 0, outputs, sizeof *outputs, NULL) != PB_OK ||
        pb_trace_stop() != PB_OK || pb_pop_backend(scope) != PB_OK)
        return fprintf(stderr, "%s\n", pb_last_error()), 1;
    puts("recorded");
}
