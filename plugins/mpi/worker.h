/* worker.h: a rank that works. */
#ifndef PB_MPI_WORKER_H
#define PB_MPI_WORKER_H

#include <parallel_backend.h>

/* Serves rank 0 until it says goodbye. The world has begun, and is connected. */
pb_status worker_serve(void);

#endif
