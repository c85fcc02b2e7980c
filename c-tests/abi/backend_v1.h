/* backend_v1.h: the backend table as version 1 of its interface has it. FROZEN: kept for ever as it is.
 *
 * Backends were compiled against this, and every later library that accepts abi_version 1 must still run
 * them. If a check below or a test that uses it fails, the library or its header is at fault, never this
 * file. A later version of the table gets a file of its own beside it. */
#ifndef BACKEND_V1_H
#define BACKEND_V1_H

#include <stddef.h>
#include <stdint.h>

typedef struct backend_v1_job backend_v1_job; /* pb_job */

typedef struct backend_v1_chunk {
    size_t begin;
    size_t end;
} backend_v1_chunk;

typedef struct backend_v1_vtable {
    size_t struct_size;
    uint32_t abi_version;
    uint32_t capabilities;
    int32_t (*open)(void *state, int32_t n_jobs, int32_t inner_max_num_threads, const char *params,
                    void **session);
    void (*close)(void *state, void *session);
    int32_t (*effective_n_jobs)(void *state, void *session, int32_t n_jobs);
    int32_t (*run)(void *state, void *session, backend_v1_job *job);
    const char *(*nested_backend)(void *state, void *session, int32_t level);
    void (*destroy)(void *state);
} backend_v1_vtable;

#define BACKEND_V1_ABI_VERSION   1u
#define BACKEND_V1_SHARES_MEMORY 0x1u
#define BACKEND_V1_INNER_LIMITS  0x2u
#define BACKEND_V1_MAKE_DEFAULT  0x1u
#define BACKEND_V1_OK            0
#define BACKEND_V1_DONE          2

/* Checks at compile time, in C99 as well as in C++: an array of negative size is an error. */
#define BACKEND_V1_ASSERT(name, holds) typedef char backend_v1_assert_##name[(holds) ? 1 : -1]
/* Slot i, from 0, behind the three fields of the head. */
#define BACKEND_V1_SLOT(name, i)                                                                             \
    BACKEND_V1_ASSERT(at_##name,                                                                             \
                      offsetof(backend_v1_vtable, name) == sizeof(size_t) + 8 + (i) * sizeof(void *))

BACKEND_V1_ASSERT(size, sizeof(backend_v1_vtable) == sizeof(size_t) + 8 + 6 * sizeof(void *));
BACKEND_V1_ASSERT(size_of_slots, sizeof(void (*)(void)) == sizeof(void *));
BACKEND_V1_ASSERT(at_struct_size, offsetof(backend_v1_vtable, struct_size) == 0);
BACKEND_V1_ASSERT(at_abi_version, offsetof(backend_v1_vtable, abi_version) == sizeof(size_t));
BACKEND_V1_ASSERT(at_capabilities, offsetof(backend_v1_vtable, capabilities) == sizeof(size_t) + 4);
BACKEND_V1_SLOT(open, 0);
BACKEND_V1_SLOT(close, 1);
BACKEND_V1_SLOT(effective_n_jobs, 2);
BACKEND_V1_SLOT(run, 3);
BACKEND_V1_SLOT(nested_backend, 4);
BACKEND_V1_SLOT(destroy, 5);
BACKEND_V1_ASSERT(chunk, sizeof(backend_v1_chunk) == 2 * sizeof(size_t));
BACKEND_V1_ASSERT(chunk_end, offsetof(backend_v1_chunk, end) == sizeof(size_t));

#endif
