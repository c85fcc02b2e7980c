/* fibonacci.h: a recursion of pb_join. */
#ifndef FIBONACCI_H
#define FIBONACCI_H

#include "check.h"

typedef struct fib {
    int64_t n, result;
} fib;

static inline int32_t fibonacci(void *ctx) {
    fib *f = ctx;
    f->result = f->n;
    if (f->n < 2)
        return 0;
    fib a = {f->n - 1, -1}, b = {f->n - 2, -1};
    const pb_status status = pb_join(fibonacci, &a, fibonacci, &b);
    f->result = a.result + b.result;
    return status;
}

static inline void check_fibonacci(int64_t n, int64_t expected) {
    fib f = {n, -1};
    CHECK_OK(fibonacci(&f));
    CHECK_INT(expected, f.result);
}

#endif
