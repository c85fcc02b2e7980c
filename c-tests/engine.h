/* engine.h: what the tests of engines share. Their tasks lie in modules/engine_tasks.c; the engine is "echo",
 * which runs chunks in the bridge itself. */
#ifndef ENGINE_H
#define ENGINE_H

#include "sync.h"

#include <dirent.h>
#include <dlfcn.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ITEMS = 40 };

static inline void *engine_symbol(const char *name) {
    static void *tasks;
    if (tasks == NULL)
        tasks = dlopen(MODULE_DIR "/engine_tasks.so", RTLD_NOW);
    void *symbol = tasks != NULL ? dlsym(tasks, name) : NULL;
    if (symbol == NULL)
        fprintf(stderr, "%s\n", dlerror());
    CHECK(symbol != NULL);
    return symbol;
}

static inline pb_task_fn engine_task(const char *name) {
    void *symbol = engine_symbol(name);
    pb_task_fn task;
    memcpy(&task, &symbol, sizeof task);
    return task;
}

static inline pb_scope push_engine(int32_t n_jobs, const char *params) {
    pb_scope scope = 0;
    CHECK_OK(pb_push_backend("dask", n_jobs, 0, params, &scope));
    return scope;
}

/* A map of ITEMS items of `add_one`; what was not written is -1. */
static inline pb_status map_add_one(int64_t outputs[ITEMS], pb_map_options *options) {
    for (int i = 0; i < ITEMS; ++i)
        outputs[i] = -1;
    return pb_parallel_map(engine_task("add_one"), NULL, ITEMS, NULL, 0, outputs, sizeof *outputs, options);
}

static inline void check_add_one(void) {
    int64_t outputs[ITEMS];
    CHECK_OK(map_add_one(outputs, NULL));
    for (int i = 0; i < ITEMS; ++i)
        CHECK_INT(i + 1, outputs[i]);
}

/* The children of a process that are no zombies, up to `most` of them. */
static inline int children_of(pid_t parent, pid_t *pids, int most) {
    DIR *processes = opendir("/proc");
    CHECK(processes != NULL);
    int count = 0;
    for (const struct dirent *entry; (entry = readdir(processes)) != NULL && count < most;) {
        char path[300], state = 0;
        int pid = 0, ppid = 0;
        snprintf(path, sizeof path, "/proc/%s/stat", entry->d_name);
        FILE *stat = atoi(entry->d_name) > 0 ? fopen(path, "r") : NULL;
        if (stat == NULL)
            continue;
        const int read = fscanf(stat, "%d (%*[^)]) %c %d", &pid, &state, &ppid);
        fclose(stat);
        if (read == 3 && ppid == parent && state != 'Z')
            pids[count++] = pid;
    }
    closedir(processes);
    return count;
}

static inline pid_t only_child_of(pid_t parent) {
    pid_t pids[2] = {0, 0};
    CHECK_INT(1, children_of(parent, pids, 2));
    return pids[0];
}

/* Whether a process that is no child of ours ends, before patience does. */
static inline int ends(pid_t pid) {
    const double end = seconds() + PATIENCE;
    while (kill(pid, 0) == 0) {
        waitpid(pid, NULL, WNOHANG); /* orphans come to a subreaper */
        if (seconds() > end)
            return 0;
        usleep(1000);
    }
    return 1;
}

#endif
