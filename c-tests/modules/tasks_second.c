/* What tasks_first.so becomes when it is built anew: other code at the same places. */
#include <parallel_backend.h>

int32_t twice(void *ctx, size_t index, const void *input, void *output) {
    (void)ctx, (void)index;
    *(int64_t *)output = *(const int64_t *)input - 1000;
    return 0;
}
