/* The backend "remote": no memory is shared. Every map forks a child for each worker, and a thread of the
 * caller's ships encoded chunks to it through a socket and completes them with what comes back. As short as a
 * backend over any carrier can be. */
#include "conformance.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- both sides: a size, then as many bytes ---- */

static int send_all(int fd, const void *data, size_t size) {
    for (const char *at = data; size > 0;) {
        const ssize_t sent = send(fd, at, size, MSG_NOSIGNAL);
        if (sent <= 0)
            return -1;
        at += sent;
        size -= (size_t)sent;
    }
    return 0;
}

static int receive_all(int fd, void *data, size_t size) {
    for (char *at = data; size > 0;) {
        const ssize_t received = recv(fd, at, size, 0);
        if (received < 0 && errno == EINTR)
            continue;
        if (received <= 0)
            return -1;
        at += received;
        size -= (size_t)received;
    }
    return 0;
}

static int send_block(int fd, pb_bytes block) {
    return send_all(fd, &block.size, sizeof block.size) || send_all(fd, block.data, block.size);
}

/* The block is to be freed; NULL at the end of the line. */
static void *receive_block(int fd, size_t *size) {
    if (receive_all(fd, size, sizeof *size) != 0)
        return NULL;
    void *block = malloc(*size + 1);
    if (block == NULL || receive_all(fd, block, *size) != 0) {
        free(block);
        return NULL;
    }
    return block;
}

/* ---- the child ---- */

static void on_cancel(int signal) {
    (void)signal;
    pb_worker_cancel();
}

static void serve(int fd) {
    struct sigaction action = {.sa_handler = on_cancel};
    sigaction(SIGUSR1, &action, NULL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    size_t size;
    for (void *message; (message = receive_block(fd, &size)) != NULL; free(message)) {
        pb_results *results = NULL;
        pb_bytes reply;
        if (pb_worker_run(message, size, &results) != PB_OK || pb_results_get(results, 0, &reply) != PB_OK)
            _exit(3);
        if (send_block(fd, reply) != 0)
            break;
        pb_results_free(results);
    }
    _exit(0);
}

/* ---- the caller ---- */

struct shipper {
    pb_job *job;
    int fd;
    pid_t child;
    pb_status status;
    pthread_t thread;
};

/* Waits for the reply; tells the child when the job wants no more. */
static void *await(struct shipper *s, size_t *size) {
    struct pollfd line = {.fd = s->fd, .events = POLLIN};
    while (poll(&line, 1, 5) <= 0)
        if (pb_job_cancelled(s->job))
            kill(s->child, SIGUSR1);
    return receive_block(s->fd, size);
}

static pb_status ship(struct shipper *s, const pb_chunk *chunk) {
    pb_bytes message;
    const pb_status status = pb_job_encode(s->job, chunk, &message);
    if (status != PB_OK)
        return status;
    size_t size;
    void *reply = send_block(s->fd, message) == 0 ? await(s, &size) : NULL;
    if (reply == NULL)
        return pb_job_return(s->job, chunk, "closed its end of the line");
    const pb_status completed = pb_job_complete(s->job, chunk, reply, size);
    free(reply);
    return completed;
}

static void *ship_all(void *arg) {
    struct shipper *s = arg;
    pb_chunk chunk;
    while ((s->status = pb_job_claim(s->job, &chunk)) == PB_OK)
        if ((s->status = ship(s, &chunk)) != PB_OK) {
            pb_job_fail(s->job, s->status, pb_last_error());
            break;
        }
    return NULL;
}

static pb_status start(struct shipper *s) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        return pb_backend_fail(PB_ERR_IO, "no socket");
    s->child = fork();
    if (s->child == 0) {
        close(ends[0]);
        serve(ends[1]);
    }
    close(ends[1]);
    s->fd = ends[0];
    return s->child > 0 ? PB_OK : pb_backend_fail(PB_ERR_IO, "no process");
}

static pb_status run(void *state, void *session, pb_job *job) {
    (void)state, (void)session;
    enum { MOST = 8 };
    struct shipper shippers[MOST];
    const int32_t wanted = pb_job_n_jobs(job) < MOST ? pb_job_n_jobs(job) : MOST;
    pb_status status = PB_OK;
    int32_t started = 0;
    /* The forks come before the threads. */
    for (; started < wanted && status == PB_OK; ++started) {
        shippers[started] = (struct shipper){.job = job};
        status = start(&shippers[started]);
    }
    for (int32_t i = 0; i < started; ++i)
        pthread_create(&shippers[i].thread, NULL, ship_all, &shippers[i]);
    for (int32_t i = 0; i < started; ++i) {
        pthread_join(shippers[i].thread, NULL);
        shutdown(shippers[i].fd, SHUT_RDWR); /* younger children have the descriptor too */
        close(shippers[i].fd);
        waitpid(shippers[i].child, NULL, 0);
    }
    return status;
}

static pb_status open_session(void *state, int32_t n_jobs, int32_t inner_max_num_threads, const char *params,
                              void **session) {
    (void)state, (void)n_jobs, (void)inner_max_num_threads, (void)session;
    if (params == NULL || *params == '\0')
        return PB_OK;
    char text[128];
    snprintf(text, sizeof text, "there is no parameter '%.60s'", params);
    return pb_backend_fail(PB_ERR_INVALID_ARGUMENT, text);
}

pb_status register_remote(void) {
    static const pb_backend_vtable vtable = {
        .struct_size = sizeof vtable,
        .abi_version = PB_BACKEND_ABI_VERSION,
        .open = open_session,
        .run = run,
    };
    return pb_register_backend("remote", &vtable, NULL, 0);
}
