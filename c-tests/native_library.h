/* native_library.h: one real library with a thread pool, loaded by the path on the command line: what it is,
 * its own knob, and how many threads it really uses. */
#ifndef NATIVE_LIBRARY_H
#define NATIVE_LIBRARY_H

#include "check.h"
#include <dlfcn.h>
#include <pthread.h>

/* The count that every thread starts with: see native_libraries.cmake. */
enum { ORIGINAL = 3 };
/* Rows and columns of a product that is worth four threads to OpenBLAS. */
enum { SIDE = 160 };

struct native_library {
    const char *label;
    const char *user_api;
    const char *internal_api;
    const char *prefix;
    const char *layer; /* NULL: none is told */
    const char *scope;
    const char *symbols; /* the prefix of its names */

    void *handle;
    int (*get)(void);  /* threads that a call from this thread may use */
    void (*set)(int);  /* the user's own way to change that */
    int (*used)(void); /* threads that a call from this thread does use */
};

static struct native_library library;

/* Finds a function of the library, or of what it is linked with. */
static inline void *library_address(const char *name) {
    char full[64];
    snprintf(full, sizeof full, "%s%s", library.symbols, name);
    void *address = dlsym(library.handle, full);
    if (address == NULL)
        fprintf(stderr, "there is no %s in %s\n", full, library.label);
    REQUIRE(address != NULL);
    return address;
}

/* ISO C has no cast from a data pointer to a function pointer. */
#define LIBRARY_FUNCTION(pointer, name)                                                                      \
    do {                                                                                                     \
        void *address_ = library_address(name);                                                              \
        memcpy(&(pointer), &address_, sizeof(pointer));                                                      \
    } while (0)

static inline int is_openblas(void) { return strcmp(library.internal_api, "openblas") == 0; }

/* The serial build has nothing to limit. */
static inline int is_serial(void) { return strcmp(library.label, "serial") == 0; }

static inline int count_is_per_thread(void) { return strcmp(library.scope, "thread") == 0; }

/* What to expect where `threads` are wanted. */
static inline int count_of(int threads) { return is_serial() ? 1 : threads; }

static inline int least(int a, int b) { return a < b ? a : b; }

static inline int under_valgrind(void) { return getenv("PB_TEST_VALGRIND") != NULL; }

/* ---- how many threads OpenBLAS uses for a product -------------------------------------------------- */

static __thread int parts; /* into which OpenBLAS has divided this thread's product */

/* OpenBLAS hands the parts of a threaded operation to its function exec_blas. In Debian's builds that call
 * can be interposed: it comes here first, because the program precedes its libraries. */
int exec_blas(long count, void *queue) {
    int (*next)(long, void *);
    void *address = dlsym(library.handle, "exec_blas");
    REQUIRE(address != NULL);
    memcpy(&next, &address, sizeof next);
    parts = (int)count;
    return next(count, queue);
}

/* The wheel hides that function, but offers to have the parts run by a function of the user's. They wait for
 * one another, so each needs a thread. */
typedef void (*part_fn)(int number, void *part, int data);

struct part {
    part_fn run;
    int number;
    void *part;
    int data;
};

static inline void *run_part(void *argument) {
    struct part *part = argument;
    part->run(part->number, part->part, part->data);
    return NULL;
}

static inline void run_parts(int sync, part_fn run, int count, size_t size, void *first, int data) {
    pthread_t threads[16];
    struct part all[16];
    (void)sync;
    REQUIRE(count <= 16);
    parts = count;
    for (int i = 0; i < count; i++) {
        all[i] = (struct part){run, i, (char *)first + (size_t)i * size, data};
        if (i > 0)
            REQUIRE(pthread_create(&threads[i], NULL, run_part, &all[i]) == 0);
    }
    run_part(&all[0]);
    for (int i = 1; i < count; i++)
        pthread_join(threads[i], NULL);
}

/* c = a * b, for square matrices of `side` rows. */
static inline void multiply(int side, const double *a, const double *b, double *c) {
    void (*dgemm)(int, int, int, int, int, int, double, const double *, int, const double *, int, double,
                  double *, int);
    enum { ROW_MAJOR = 101, AS_IT_IS = 111 };
    LIBRARY_FUNCTION(dgemm, "cblas_dgemm");
    dgemm(ROW_MAJOR, AS_IT_IS, AS_IT_IS, side, side, side, 1.0, a, side, b, side, 0.0, c, side);
}

static inline int threads_of_product(void) {
    double *zeroes = calloc(3 * SIDE * SIDE, sizeof *zeroes);
    REQUIRE(zeroes != NULL);
    parts = 1; /* a product that is not divided stays on this thread */
    multiply(SIDE, zeroes, zeroes + SIDE * SIDE, zeroes + 2 * SIDE * SIDE);
    free(zeroes);
    return parts;
}

/* ---- loading --------------------------------------------------------------------------------------- */

static inline void library_bind(void) {
    if (!is_openblas()) {
        LIBRARY_FUNCTION(library.get, "omp_get_max_threads");
        LIBRARY_FUNCTION(library.set, "omp_set_num_threads");
        LIBRARY_FUNCTION(library.used, "team_size");
        return;
    }
    library.used = threads_of_product;
    if (strcmp(library.layer, "openmp") == 0) {
        /* Its own getter tells what some thread's last call used; the next one takes the thread's OpenMP
         * count. */
        LIBRARY_FUNCTION(library.get, "omp_get_max_threads");
        LIBRARY_FUNCTION(library.set, "omp_set_num_threads");
        return;
    }
    LIBRARY_FUNCTION(library.get, "openblas_get_num_threads");
    LIBRARY_FUNCTION(library.set, "openblas_set_num_threads");
    if (strcmp(library.label, "wheel") == 0) {
        void (*set_callback)(void (*)(int, part_fn, int, size_t, void *, int));
        LIBRARY_FUNCTION(set_callback, "openblas_set_threads_callback_function");
        set_callback(run_parts);
    }
}

/* Loads the library that the arguments name: its label, its file, and another file that leads to it. */
static inline void library_load(int argc, char **argv) {
    static const struct native_library known[] = {
        {.label = "pthread",
         .user_api = "blas",
         .internal_api = "openblas",
         .prefix = "libopenblas",
         .layer = "pthreads",
         .scope = "shared-pool",
         .symbols = ""},
        {.label = "openmp",
         .user_api = "blas",
         .internal_api = "openblas",
         .prefix = "libopenblas",
         .layer = "openmp",
         .scope = "thread",
         .symbols = ""},
        {.label = "serial",
         .user_api = "blas",
         .internal_api = "openblas",
         .prefix = "libopenblas",
         .layer = "disabled",
         .scope = "process",
         .symbols = ""},
        {.label = "wheel",
         .user_api = "blas",
         .internal_api = "openblas",
         .prefix = "libscipy_openblas",
         .layer = "pthreads",
         .scope = "shared-pool",
         .symbols = "scipy_"},
        {.label = "gomp",
         .user_api = "openmp",
         .internal_api = "openmp",
         .prefix = "libgomp",
         .scope = "thread",
         .symbols = ""},
        {.label = "llvm",
         .user_api = "openmp",
         .internal_api = "openmp",
         .prefix = "libomp",
         .scope = "thread",
         .symbols = ""},
    };
    if (argc < 4)
        fprintf(stderr, "a library is missing: run `scripts/setup test`, then configure again\n");
    REQUIRE(argc >= 4);
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(known[i].label, argv[1]) == 0)
            library = known[i];
    REQUIRE(library.label != NULL);
    library.handle = dlopen(argv[2], RTLD_NOW | RTLD_LOCAL);
    if (library.handle == NULL)
        fprintf(stderr, "%s\n", dlerror());
    REQUIRE(library.handle != NULL);
    library_bind();
}

/* The same, and this thread's count is ORIGINAL. */
static inline void library_start(int argc, char **argv) {
    library_load(argc, argv);
    library.set(ORIGINAL);
    REQUIRE(library.get() == count_of(ORIGINAL));
}

/* ---- what the listing says of it ------------------------------------------------------------------- */

/* The number of listed pools of a family, and the last of them. */
static inline int list_pools(const char *internal_api, pb_thread_pool *last) {
    int found = 0;
    size_t count = pb_thread_pool_count();
    for (size_t i = 0; i < count; i++) {
        pb_thread_pool pool = {.struct_size = sizeof pool};
        CHECK_OK(pb_thread_pool_get(i, &pool));
        if (strcmp(pool.internal_api, internal_api) != 0)
            continue;
        *last = pool;
        found++;
    }
    return found;
}

static inline int listed_count(void) {
    pb_thread_pool pool = {.struct_size = sizeof pool};
    CHECK_INT(1, list_pools(library.internal_api, &pool));
    return pool.num_threads;
}

#endif
