/* check.h: the little that the C and C++ tests share.
 *
 *     TEST(popping_twice_is_an_error) { CHECK_STATUS(pb_pop_backend(0), PB_ERR_SCOPE); CHECK_TEXT("0 is
 * never"); } int main(void) { RUN(popping_twice_is_an_error); return check_result(); }
 *
 * A check that fails prints file, line and values, and the test goes on; it may run on any thread, so in
 * tasks too. REQUIRE ends the program: for what the rest of a test cannot do without.
 */
#ifndef CHECK_H
#define CHECK_H

#include <parallel_backend.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Counted atomically: checks run in tasks too. Weak: the files of one program count together. */
__attribute__((weak)) int check_failures;

#define TEST(name) static void name(void)
#define RUN(name)  check_run(#name, name)

#define CHECK(condition)   check_true(__FILE__, __LINE__, #condition, (condition) ? 1 : 0)
#define REQUIRE(condition) ((condition) ? (void)0 : check_die(__FILE__, __LINE__, #condition))
/* Integers of any type up to 64 bits; the expected one comes first. */
#define CHECK_INT(expected, actual)                                                                          \
    check_int(__FILE__, __LINE__, #actual, (long long)(expected), (long long)(actual))
#define CHECK_STR(expected, actual) check_str(__FILE__, __LINE__, #actual, expected, actual)
#define CHECK_STATUS(call, status)  check_status(__FILE__, __LINE__, #call, #status, call, status)
#define CHECK_OK(call)              CHECK_STATUS(call, PB_OK)
/* This thread's last error text contains `part`. */
#define CHECK_TEXT(part) check_text(__FILE__, __LINE__, part)

static inline void check_fail(const char *file, int line) {
    __atomic_fetch_add(&check_failures, 1, __ATOMIC_RELAXED);
    fprintf(stderr, "%s:%d: ", file, line);
}

static inline void check_true(const char *file, int line, const char *what, int holds) {
    if (holds)
        return;
    check_fail(file, line);
    fprintf(stderr, "not so: %s\n", what);
}

static inline void check_die(const char *file, int line, const char *what) {
    check_true(file, line, what, 0);
    exit(1);
}

static inline void check_int(const char *file, int line, const char *what, long long expected,
                             long long actual) {
    if (actual == expected)
        return;
    check_fail(file, line);
    fprintf(stderr, "%s is %lld, not %lld\n", what, actual, expected);
}

static inline void check_str(const char *file, int line, const char *what, const char *expected,
                             const char *actual) {
    if (actual != NULL && strcmp(actual, expected) == 0)
        return;
    check_fail(file, line);
    fprintf(stderr, "%s is \"%s\", not \"%s\"\n", what, actual != NULL ? actual : "(NULL)", expected);
}

static inline void check_status(const char *file, int line, const char *call, const char *name,
                                int32_t actual, int32_t expected) {
    if (actual == expected)
        return;
    check_fail(file, line);
    fprintf(stderr, "%s is %d, not %s (%d); last error: \"%s\"\n", call, actual, name, expected,
            pb_last_error());
}

static inline void check_text(const char *file, int line, const char *part) {
    if (strstr(pb_last_error(), part) != NULL)
        return;
    check_fail(file, line);
    fprintf(stderr, "the last error says \"%s\", without \"%s\"\n", pb_last_error(), part);
}

static inline void check_run(const char *name, void (*test)(void)) {
    int before = __atomic_load_n(&check_failures, __ATOMIC_RELAXED);
    printf("%s ... ", name);
    fflush(stdout);
    test();
    puts(__atomic_load_n(&check_failures, __ATOMIC_RELAXED) == before ? "ok" : "FAILED");
}

/* What main() returns. */
static inline int check_result(void) {
    return __atomic_load_n(&check_failures, __ATOMIC_RELAXED) == 0 ? 0 : 1;
}

#endif
