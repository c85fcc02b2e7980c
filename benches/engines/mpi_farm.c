/* The same work as mpi_ours.c as one writes it by hand for one purpose: "mpirun -n K+1 mpi_farm ITEMS STEPS".
 * Rank 0 gives out indexes and collects results, two of them on their way to each worker; waits are MPI's
 * own, which keep a CPU busy. */
#include <mpi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

uint64_t bench_work(uint64_t seed, uint64_t steps);

enum { TAG_WORK = 1, TAG_RESULT = 2, TAG_END = 3, AHEAD = 2 };

struct result {
    uint64_t index, value;
};

static void work(uint64_t steps) {
    for (;;) {
        struct result result;
        MPI_Status status;
        MPI_Recv(&result.index, 8, MPI_BYTE, 0, MPI_ANY_TAG, MPI_COMM_WORLD, &status);
        if (status.MPI_TAG == TAG_END)
            return;
        result.value = bench_work(result.index, steps);
        MPI_Send(&result, sizeof result, MPI_BYTE, 0, TAG_RESULT, MPI_COMM_WORLD);
    }
}

static void farm(uint64_t items, uint64_t *outputs, int workers) {
    uint64_t next = 0;
    for (int ahead = 0; ahead < AHEAD; ++ahead)
        for (int rank = 1; rank <= workers && next < items; ++rank, ++next)
            MPI_Send(&next, 8, MPI_BYTE, rank, TAG_WORK, MPI_COMM_WORLD);
    for (uint64_t done = 0; done < items; ++done) {
        struct result result;
        MPI_Status status;
        MPI_Recv(&result, sizeof result, MPI_BYTE, MPI_ANY_SOURCE, TAG_RESULT, MPI_COMM_WORLD, &status);
        outputs[result.index] = result.value;
        if (next < items) {
            MPI_Send(&next, 8, MPI_BYTE, status.MPI_SOURCE, TAG_WORK, MPI_COMM_WORLD);
            ++next;
        }
    }
}

int main(int argc, char **argv) {
    if (argc != 3)
        return 2;
    const uint64_t items = strtoull(argv[1], NULL, 10), steps = strtoull(argv[2], NULL, 10);
    int rank, size;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    if (rank > 0) {
        work(steps);
    } else {
        uint64_t *outputs = calloc(items, sizeof *outputs);
        farm(items / 100 + 1, outputs, size - 1);
        const double start = MPI_Wtime();
        farm(items, outputs, size - 1);
        printf("%.6f\n", MPI_Wtime() - start);
        for (int worker = 1; worker < size; ++worker)
            MPI_Send(NULL, 0, MPI_BYTE, worker, TAG_END, MPI_COMM_WORLD);
        free(outputs);
    }
    MPI_Finalize();
    return 0;
}
