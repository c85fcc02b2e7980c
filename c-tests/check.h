/* check.h: the little that the C and C++ tests share.
 *
 *     TEST(zero_is_no_scope) {
 *         CHECK_STATUS(pb_pop_backend(0), PB_ERR_SCOPE);
 *         CHECK_TEXT("0 is never a scope");
 *     }
 *     int main(void) {
 *         RUN(zero_is_no_scope);
 *         return check_result();
 *     }
 *
 * A check that fails prints file, line and values, and ends the process at once with exit code 1. It may
 * stand on any thread, so in tasks too, and in a forked child.
 */
#ifndef CHECK_H
#define CHECK_H

#include <parallel_backend.h>

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEST(name) static void name(void)
#define RUN(name)  check_run(#name, name)

#define CHECK(condition) check_true(__FILE__, __LINE__, #condition, (condition) ? 1 : 0)
/* The same, for what the rest of a test cannot do without. */
#define REQUIRE(condition) CHECK(condition)
/* Integers of any type up to 64 bits; the expected one comes first. */
#define CHECK_INT(expected, actual)                                                                          \
    check_int(__FILE__, __LINE__, #actual, (long long)(expected), (long long)(actual))
#define CHECK_STR(expected, actual) check_str(__FILE__, __LINE__, #actual, expected, actual)
/* The call returns this status. */
#define CHECK_OK(call)             CHECK_STATUS(call, PB_OK)
#define CHECK_STATUS(call, status) check_status(__FILE__, __LINE__, #call, #status, call, status)
/* This thread's last error text contains `part`. */
#define CHECK_TEXT(part) check_text(__FILE__, __LINE__, part)

/* No exit(): its handlers would run while other threads still work. */
static inline void check_end(void) {
    fflush(NULL);
    _Exit(1);
}

static inline void check_true(const char *file, int line, const char *what, int holds) {
    if (holds)
        return;
    fprintf(stderr, "\n%s:%d: not so: %s\n", file, line, what);
    check_end();
}

static inline void check_int(const char *file, int line, const char *what, long long expected,
                             long long actual) {
    if (actual == expected)
        return;
    fprintf(stderr, "\n%s:%d: %s is %lld, not %lld\n", file, line, what, actual, expected);
    check_end();
}

static inline void check_str(const char *file, int line, const char *what, const char *expected,
                             const char *actual) {
    if (actual != NULL && strcmp(actual, expected) == 0)
        return;
    fprintf(stderr, "\n%s:%d: %s is \"%s\", not \"%s\"\n", file, line, what,
            actual != NULL ? actual : "(NULL)", expected);
    check_end();
}

static inline void check_status(const char *file, int line, const char *call, const char *name,
                                int32_t actual, int32_t expected) {
    if (actual == expected)
        return;
    fprintf(stderr, "\n%s:%d: %s returned %d, not %s (%d); last error: \"%s\"\n", file, line, call, actual,
            name, expected, pb_last_error());
    check_end();
}

static inline void check_text(const char *file, int line, const char *part) {
    if (strstr(pb_last_error(), part) != NULL)
        return;
    fprintf(stderr, "\n%s:%d: the last error says \"%s\", without \"%s\"\n", file, line, pb_last_error(),
            part);
    check_end();
}

static inline void check_run(const char *name, void (*test)(void)) {
    printf("%s ... ", name);
    fflush(stdout);
    test();
    puts("ok");
}

/* What main() returns: whoever gets here has passed. */
static inline int check_result(void) {
    puts("all passed");
    return 0;
}

#endif
