/* manager.h: rank 0. */
#ifndef PB_MPI_MANAGER_H
#define PB_MPI_MANAGER_H

#include <parallel_backend.h>

/* Greets the workers. The world has begun, and is connected. `timeout` in seconds. */
pb_status manager_begin(double timeout);
/* Says goodbye to them, and whether that could be done. No map runs. */
int manager_end(void);
/* How many there are. */
int32_t manager_workers(void);
/* Runs a map. From several threads at once. */
pb_status manager_run(pb_job *job);

#endif
