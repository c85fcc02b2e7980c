/* pb_alloc_shared: memory like any other, which processes share. */
#include "scopes.h"
#include "sync.h"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static int *allocate(size_t size) {
    void *block = NULL;
    CHECK_OK(pb_alloc_shared(size, &block));
    CHECK(block != NULL);
    return block;
}

TEST(a_block_is_zero_aligned_and_writable) {
    int *block = allocate(3 << 20);
    CHECK_INT(0, (uintptr_t)block % (uintptr_t)sysconf(_SC_PAGESIZE));
    const size_t n = (3 << 20) / sizeof *block;
    for (size_t i = 0; i < n; i++) {
        CHECK_INT(0, block[i]);
        block[i] = (int)i;
    }
    for (size_t i = 0; i < n; i++)
        CHECK_INT(i, block[i]);
    pb_free_shared(block);
}

TEST(a_forked_child_writes_into_the_same_memory) {
    int *block = allocate(sizeof *block);
    const pid_t child = fork();
    if (child == 0) {
        *block = 7;
        pb_free_shared(block); /* its own mapping only */
        _exit(0);
    }
    CHECK_INT(child, waitpid(child, NULL, 0));
    CHECK_INT(7, *block);
    pb_free_shared(block);
}

TEST(blocks_come_and_go_in_any_order) {
    enum { N = 100 };
    int *blocks[N];
    for (int round = 0; round < 10; round++) {
        for (int i = 0; i < N; i++)
            *(blocks[i] = allocate(1 + (size_t)i * 1000)) = i;
        for (int i = 0; i < N; i++) {
            const int k = i * 37 % N;
            CHECK_INT(k, *blocks[k]);
            pb_free_shared(blocks[k]);
        }
    }
}

TEST(bad_arguments_are_told) {
    void *block = &block;
    CHECK_STATUS(pb_alloc_shared(0, &block), PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("0 bytes");
    CHECK_STATUS(pb_alloc_shared(1, NULL), PB_ERR_INVALID_ARGUMENT);
    CHECK_TEXT("block is NULL");
    CHECK_STATUS(pb_alloc_shared(SIZE_MAX, &block), PB_ERR_OUT_OF_MEMORY);
    CHECK_STATUS(pb_alloc_shared((size_t)1 << 60, &block), PB_ERR_OUT_OF_MEMORY);
    CHECK_TEXT("this machine has");
    CHECK(block == &block);
}

TEST(freeing_what_is_no_block_says_so_and_does_nothing) {
    int *block = allocate(10000), here = 3;
    pb_free_shared(NULL);
    pb_free_shared(&here);
    CHECK_TEXT("no block of pb_alloc_shared");
    pb_free_shared(block + 1);
    CHECK_TEXT("no block of pb_alloc_shared");
    *block = 5;
    pb_free_shared(block);
    pb_free_shared(block);
    CHECK_TEXT("freed already");
    CHECK_INT(3, here);
}

TEST(without_descriptors_the_text_says_what_to_do) {
    struct rlimit old, few;
    CHECK_INT(0, getrlimit(RLIMIT_NOFILE, &old));
    few = old;
    few.rlim_cur = 0;
    CHECK_INT(0, setrlimit(RLIMIT_NOFILE, &few));
    void *block = NULL;
    const pb_status status = pb_alloc_shared(1, &block);
    CHECK_INT(0, setrlimit(RLIMIT_NOFILE, &old));
    CHECK_INT(PB_ERR_OUT_OF_MEMORY, status);
    CHECK_TEXT("ulimit -n");
}

/* A file beyond that limit would end the whole process by a signal. */
TEST(a_limit_on_files_is_an_error_too) {
    struct rlimit old, small;
    CHECK_INT(0, getrlimit(RLIMIT_FSIZE, &old));
    small = old;
    small.rlim_cur = 1 << 20;
    CHECK_INT(0, setrlimit(RLIMIT_FSIZE, &small));
    void *block = NULL;
    const pb_status status = pb_alloc_shared(2 << 20, &block);
    pb_free_shared(allocate(1 << 20));
    CHECK_INT(0, setrlimit(RLIMIT_FSIZE, &old));
    CHECK_INT(PB_ERR_OUT_OF_MEMORY, status);
    CHECK_TEXT("ulimit -f");
}

enum { THREADS = 8 };

static void *allocate_and_free(void *unused) {
    for (size_t i = rounds(300); i > 0; i--) {
        int *block = allocate(i * 100);
        *block = (int)i;
        CHECK_INT(i, *block);
        pb_free_shared(block);
    }
    return unused;
}

TEST(threads_allocate_and_free_at_once) { on_other_threads(THREADS, allocate_and_free, NULL); }

int main(void) {
    RUN(a_block_is_zero_aligned_and_writable);
    RUN(a_forked_child_writes_into_the_same_memory);
    RUN(blocks_come_and_go_in_any_order);
    RUN(bad_arguments_are_told);
    RUN(freeing_what_is_no_block_says_so_and_does_nothing);
    RUN(without_descriptors_the_text_says_what_to_do);
    RUN(a_limit_on_files_is_an_error_too);
    RUN(threads_allocate_and_free_at_once);
    CHECK_OK(pb_shutdown());
    return check_result();
}
