/* Frames over MPI: carry.h has the meaning. */
#define _POSIX_C_SOURCE 200809L
#include "carry.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* MPI counts in int. */
enum { PIECE = 1 << 30 };

/* Without a sleep, however long they take. 50 to 2,000 made no difference to benches/engines/mpi.py. */
enum { LOOKS = 200 };

int buffer_reserve(struct buffer *buffer, size_t size) {
    if (size <= buffer->room && buffer->data != NULL)
        return 1;
    buffer_free(buffer);
    const size_t room = size < FRAME_ROOM ? FRAME_ROOM : size;
    if (posix_memalign(&buffer->data, 64, room) != 0) {
        buffer->data = NULL;
        return 0;
    }
    buffer->room = room;
    return 1;
}

void buffer_free(struct buffer *buffer) {
    free(buffer->data);
    *buffer = (struct buffer){NULL, 0};
}

static int pieces_of(size_t size) { return size <= BODY_ROOM ? 0 : (int)((size + PIECE - 1) / PIECE); }

static size_t piece_size(size_t size, int piece) {
    const size_t left = size - (size_t)piece * PIECE;
    return left < PIECE ? left : PIECE;
}

static int outgoing_reserve(struct outgoing *out, int requests) {
    if (out->copy == NULL && (out->copy = malloc(FRAME_ROOM)) == NULL)
        return 0;
    if (requests > out->room) {
        MPI_Request *more = realloc(out->requests, (size_t)requests * sizeof *more);
        if (more == NULL)
            return 0;
        out->requests = more;
        out->room = requests;
    }
    return 1;
}

int carry_send(struct outgoing *out, MPI_Comm comm, int rank, int tag, const struct frame *frame,
               const void *body) {
    const int pieces = pieces_of(frame->size);
    if (!outgoing_reserve(out, 1 + pieces))
        return CARRY_NO_MEMORY;
    memcpy(out->copy, frame, sizeof *frame);
    const size_t inside = pieces == 0 ? frame->size : 0;
    if (inside > 0)
        memcpy(out->copy + sizeof *frame, body, inside);
    out->count = 0;
    out->busy = 1;
    int code = MPI_Isend(out->copy, (int)(sizeof *frame + inside), MPI_BYTE, rank, tag, comm,
                         &out->requests[out->count++]);
    for (int piece = 0; piece < pieces && code == MPI_SUCCESS; ++piece) {
        const char *at = (const char *)body + (size_t)piece * PIECE;
        code = MPI_Isend(at, (int)piece_size(frame->size, piece), MPI_BYTE, rank, TAG_BODY, comm,
                         &out->requests[out->count++]);
    }
    return code;
}

int carry_arrived(struct outgoing *out, int *arrived) {
    *arrived = 1;
    if (!out->busy)
        return MPI_SUCCESS;
    for (; out->count > 0; --out->count) {
        const int code = MPI_Test(&out->requests[out->count - 1], arrived, MPI_STATUS_IGNORE);
        if (code != MPI_SUCCESS || !*arrived)
            return code;
    }
    out->busy = 0;
    return MPI_SUCCESS;
}

void carry_free(struct outgoing *out) {
    free(out->copy);
    free(out->requests);
    *out = (struct outgoing){0};
}

static int receive_body(struct incoming *in, MPI_Comm comm) {
    const size_t size = in->frame.size;
    if (!buffer_reserve(&in->body, size))
        return CARRY_NO_MEMORY;
    in->data = in->body.data;
    int code = MPI_SUCCESS;
    for (int piece = 0; piece < pieces_of(size) && code == MPI_SUCCESS; ++piece)
        code = MPI_Recv((char *)in->data + (size_t)piece * PIECE, (int)piece_size(size, piece), MPI_BYTE,
                        in->rank, TAG_BODY, comm, MPI_STATUS_IGNORE);
    return code;
}

int carry_receive(struct incoming *in, MPI_Comm comm, int rank, int tag, int *came) {
    MPI_Status status;
    /* Open MPI's first look takes what has come from shared memory, and its second one finds it. */
    int code = MPI_Iprobe(rank, tag, comm, came, &status);
    if (code == MPI_SUCCESS && !*came)
        code = MPI_Iprobe(rank, tag, comm, came, &status);
    if (code != MPI_SUCCESS || !*came)
        return code;
    *came = 0;
    if (in->room == NULL && posix_memalign((void **)&in->room, 64, FRAME_ROOM) != 0) {
        in->room = NULL;
        return CARRY_NO_MEMORY;
    }
    int count = 0;
    in->rank = status.MPI_SOURCE;
    code = MPI_Recv(in->room, FRAME_ROOM, MPI_BYTE, in->rank, tag, comm, &status);
    if (code != MPI_SUCCESS || (code = MPI_Get_count(&status, MPI_BYTE, &count)) != MPI_SUCCESS)
        return code;
    if ((size_t)count < sizeof in->frame)
        return CARRY_NOT_OURS;
    memcpy(&in->frame, in->room, sizeof in->frame);
    const size_t inside = pieces_of(in->frame.size) == 0 ? in->frame.size : 0;
    if (in->frame.magic != FRAME_MAGIC || (size_t)count != sizeof in->frame + inside)
        return CARRY_NOT_OURS;
    in->data = in->room + sizeof in->frame;
    if (inside < in->frame.size)
        code = receive_body(in, comm);
    *came = code == MPI_SUCCESS;
    return code;
}

void carry_drop(struct incoming *in) {
    free(in->room);
    buffer_free(&in->body);
    *in = (struct incoming){0};
}

const char *carry_error(int code) {
    static __thread char text[MPI_MAX_ERROR_STRING + 1];
    int length = 0;
    if (code == CARRY_NO_MEMORY)
        return "no memory for a message";
    if (code == CARRY_NOT_OURS)
        return "a message is none of this backend's protocol: do all ranks run the same version, on machines "
               "of one byte order?";
    if (MPI_Error_string(code, text, &length) != MPI_SUCCESS)
        snprintf(text, sizeof text, "MPI error %d", code);
    return text;
}

double now_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

void rest_a_little(struct rest *rest) {
    const double now = now_seconds();
    if (rest->since == 0)
        rest->since = now;
    const double passed = now - rest->since;
    if (passed < 200e-6 || ++rest->looks < LOOKS) {
        sched_yield();
        return;
    }
    sleep_for(passed / 4 < 1e-3 ? passed / 4 : 1e-3);
}

void sleep_for(double seconds) {
    const struct timespec time = {0, (long)(seconds * 1e9)};
    nanosleep(&time, NULL);
}
