/* child.h: forked children of a test. */
#ifndef CHILD_H
#define CHILD_H

#include "check.h"

#include <sys/wait.h>
#include <unistd.h>

/* Waits for a child, which must end well. */
static inline void await(pid_t child) {
    int status = -1;
    CHECK(child > 0);
    CHECK_INT(child, waitpid(child, &status, 0));
    CHECK(WIFEXITED(status)); /* else its alarm has ended it: it hung */
    CHECK_INT(0, WEXITSTATUS(status));
}

/* Does `work` in a child. One that hangs is ended by its alarm and fails the test. */
static inline void in_child(void (*work)(void)) {
    fflush(NULL);
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        alarm(60);
        work();
        _exit(0);
    }
    await(child);
}

#endif
