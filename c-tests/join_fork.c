/* pb_join in a process that one of its branches forks. */
#include "fibonacci.h"
#include "scopes.h"

#include <sys/wait.h>
#include <unistd.h>

static __thread int is_caller;

static int32_t recurse_in_child(void *ctx) {
    int32_t depth = *(int32_t *)ctx;
    if (depth > 0) {
        int32_t a = depth - 1, b = a;
        return pb_join(recurse_in_child, &a, recurse_in_child, &b);
    }
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        alarm(30);
        check_fibonacci(10, 55);
        /* On the caller's thread the child, too, goes back through all joins around this one; a worker's
         * thread has nowhere to go. */
        if (!is_caller)
            _exit(0);
        return 0;
    }
    int status = -1;
    CHECK_INT(child, waitpid(child, &status, 0));
    CHECK(WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* What the other workers had taken is lost to the child, and says so; nothing hangs. */
TEST(a_child_that_a_branch_forks_comes_home) {
    const pid_t self = getpid();
    is_caller = 1;
    int32_t depth = times(3, 1);
    for (int i = times(10, 1); i > 0; i--) {
        const pb_scope scope = open_scope("threading", 2);
        const pb_status status = recurse_in_child(&depth);
        if (getpid() != self)
            _exit(status == PB_OK || status == PB_ERR_WORKER_LOST || status == PB_ERR_TASK_FAILED ? 0 : 1);
        CHECK_INT(PB_OK, status);
        close_scope(scope);
    }
}

int main(void) {
    forget_environment();
    RUN(a_child_that_a_branch_forks_comes_home);
    CHECK_OK(pb_shutdown());
    return check_result();
}
