/* tasks.h: tasks by name. Each reads a double and writes a double. */
#ifndef TASKS_H
#define TASKS_H

#include <parallel_backend.h>

/* NULL for an unknown name. */
pb_task_fn task_named(const char *name);

#endif
