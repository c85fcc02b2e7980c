/* carry.h: frames over MPI, and how to wait for them without keeping a CPU busy.
 *
 * Nothing here takes a lock: whoever calls sees to it that one thread at a time is in MPI. Functions return
 * an MPI error code; carry_error makes a text of it. */
#ifndef PB_MPI_CARRY_H
#define PB_MPI_CARRY_H

#include "wire.h"

#include <mpi.h>
#include <stddef.h>

/* Memory that grows, aligned to 64 bytes. */
struct buffer {
    void *data;
    size_t room;
};

/* 0 when there is no memory. What it held is lost if it has to grow. */
int buffer_reserve(struct buffer *buffer, size_t size);
void buffer_free(struct buffer *buffer);

/* A frame on its way. Starts as zero; may be used again when it has arrived. */
struct outgoing {
    char *copy; /* FRAME_ROOM bytes */
    MPI_Request *requests;
    int count, room;
    int busy;
};

/* Starts to send. A body above BODY_ROOM must stay until the frame has arrived; a smaller one is copied. */
int carry_send(struct outgoing *out, MPI_Comm comm, int rank, int tag, const struct frame *frame,
               const void *body);
/* Whether it has arrived, or nothing was sent. */
int carry_arrived(struct outgoing *out, int *arrived);
/* Frees what has arrived. */
void carry_free(struct outgoing *out);

/* A frame that has come, with its body. */
struct incoming {
    struct frame frame;
    int rank;
    char *room;         /* FRAME_ROOM bytes */
    struct buffer body; /* for bodies above BODY_ROOM */
    void *data;         /* the body, of frame.size bytes */
};

/* Looks for a frame from `rank` (or MPI_ANY_SOURCE), and receives it whole if there is one. */
int carry_receive(struct incoming *in, MPI_Comm comm, int rank, int tag, int *came);
void carry_drop(struct incoming *in);

/* "MPI_ERR_...: text", valid until the next call on this thread. */
const char *carry_error(int code);

/* Since when nothing has happened, and how often that was seen. Starts as zero, and is zeroed when something
 * happens. */
struct rest {
    double since;
    int looks;
};

/* Between two looks: yields at first, so that where there are more ranks than CPUs those that have work get
 * one, then sleeps for a part of the time that has passed, 1 ms at most. A rank that had no CPU for a while
 * has not looked in vain: it sleeps only after many looks. */
void rest_a_little(struct rest *rest);

/* Gives the CPU away for so many seconds, less than 1. */
void sleep_for(double seconds);

/* Of a clock that only goes forward. */
double now_seconds(void);

/* For requests and for ranks that were given up. */
#define CARRY_NO_MEMORY (-1)
#define CARRY_NOT_OURS  (-2)

#endif
