"""The work of ours.c on Python's loky: through its executor, and through joblib, whose default backend it is."""

import statistics
import sys
import time

WORKERS = int(sys.argv[1])
ARRAYS = [bytes(8 << 20) for _ in range(8)]


def trivial(i):
    return float(i)


def echo(array):
    return array


def row(what, rounds, work, before=lambda: None):
    before()
    work()
    times = []
    for _ in range(rounds):
        before()
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    print(f"{what}\t{1e3 * statistics.median(times):.3f}")


def executor():
    from loky import get_reusable_executor

    def run(function, items, chunksize=1):
        return list(get_reusable_executor(WORKERS).map(function, items, chunksize=chunksize))

    def end():
        get_reusable_executor(WORKERS).shutdown(wait=True)

    row("start of the workers, and 2 trivial items", 3, lambda: run(trivial, range(2)), before=end)
    row("2 trivial items", 101, lambda: run(trivial, range(2)))
    row("100,000 trivial items", 5, lambda: run(trivial, range(100_000), chunksize=100))
    row("8 arrays of 8 MiB, echoed", 3, lambda: run(echo, ARRAYS))


def through_joblib():
    from joblib import Parallel, delayed

    def run(function, items):
        return Parallel(n_jobs=WORKERS)(delayed(function)(item) for item in items)

    row("2 trivial items", 31, lambda: run(trivial, range(2)))
    row("100,000 trivial items", 3, lambda: run(trivial, range(100_000)))
    row("8 arrays of 8 MiB, echoed", 3, lambda: run(echo, ARRAYS))


if __name__ == "__main__":
    executor() if sys.argv[2] == "executor" else through_joblib()
