"""The work of ours.c on Python's fork pool: once made for each map, as a fork per call is, and once kept."""

import multiprocessing
import statistics
import sys
import time

WORKERS = int(sys.argv[1])
ARRAYS = [bytes(8 << 20) for _ in range(8)]
fork = multiprocessing.get_context("fork")


def trivial(i):
    return float(i)


def echo(array):
    return array


def row(what, rounds, work):
    work()
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    print(f"{what}\t{1e3 * statistics.median(times):.3f}")


def made_for_it(function, items):
    with fork.Pool(WORKERS) as pool:
        pool.map(function, items)


if __name__ == "__main__":
    if sys.argv[2] == "new":
        row("2 trivial items", 21, lambda: made_for_it(trivial, range(2)))
        row("100,000 trivial items", 7, lambda: made_for_it(trivial, range(100_000)))
        row("8 arrays of 8 MiB, echoed", 5, lambda: made_for_it(echo, ARRAYS))
    else:
        with fork.Pool(WORKERS) as kept:
            row("2 trivial items", 101, lambda: kept.map(trivial, range(2)))
            row("100,000 trivial items", 7, lambda: kept.map(trivial, range(100_000)))
            row("8 arrays of 8 MiB, echoed", 5, lambda: kept.map(echo, ARRAYS, chunksize=1))
