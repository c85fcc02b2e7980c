/* wire.h: what ranks send each other.
 *
 * Everything is a frame: 64 bytes, the same on all ranks, and a body. A body that fits travels behind its
 * frame in one MPI message of tag TAG_FRAME; a longer one follows in messages of tag TAG_BODY, in pieces that
 * an int can count. MPI keeps the order of messages of one tag between two ranks, so frames and bodies need
 * no numbers.
 *
 *   worker                          manager (rank 0)
 *   HELLO   version, host     ->
 *                             <-    WELCOME  session, who else is on that machine
 *                             <-    CTX      once a map and worker
 *                             <-    WORK     a chunk, as pb_job_encode_for wrote it; two at most on their way
 *   REPLY or FAILED           ->
 *                             <-    CANCEL   by tag TAG_CONTROL: overtakes the chunks that wait
 *                             <-    FORGET   the map is over: frees its ctx
 *                             <-    BYE      the end
 */
#ifndef PB_MPI_WIRE_H
#define PB_MPI_WIRE_H

#include <stdint.h>

enum { TAG_FRAME = 1, TAG_BODY = 2, TAG_CONTROL = 3 };

enum frame_kind {
    FRAME_HELLO = 1,
    FRAME_WELCOME,
    FRAME_CTX,
    FRAME_WORK,
    FRAME_REPLY,
    FRAME_FAILED, /* the worker could not make a reply; the body says why */
    FRAME_CANCEL,
    FRAME_FORGET,
    FRAME_BYE,
};

/* Read as one number: other bytes mean another protocol, or a machine of another byte order. */
#define FRAME_MAGIC 0x50424D01u

struct frame {
    uint32_t magic;
    uint32_t kind;
    uint64_t session; /* 0 before WELCOME */
    uint64_t run;     /* the map: pb_job_call */
    uint64_t chunk;
    uint64_t size; /* of the body */
    uint64_t unused[3];
};
typedef char frame_has_64_bytes[sizeof(struct frame) == 64 ? 1 : -1];

/* Chunks on their way to one worker at most, and so replies on their way back. */
enum { SLOTS = 4 };

/* The longest MPI message with a frame in it. */
enum { FRAME_ROOM = 64 * 1024, BODY_ROOM = FRAME_ROOM - 64 };

/* The body of HELLO. */
struct hello {
    char version[32]; /* of parallel_backend */
    char host[96];
};

/* The body of WELCOME. */
struct welcome {
    int32_t workers_here; /* ranks that work on the same machine */
    int32_t is_far;       /* that is another machine than rank 0's */
};

#endif
