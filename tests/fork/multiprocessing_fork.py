"""Python's multiprocessing forks a process whose threads are in maps of the library; the children call it, too.

Usage: multiprocessing_fork.py LIBRARY. Tasks are Python functions, called by ctypes on the library's threads: but for
those that run while Python forks. A thread that Python does not know takes a lock of the interpreter's when it enters a
Python function, and CPython 3.11's own part of a fork waits for ever in a child whose parent was forked in that moment.
"""

import ctypes
import gc
import multiprocessing
import os
import signal
import sys
import threading
from ctypes import CFUNCTYPE, POINTER, byref, c_char_p, c_int32, c_int64, c_size_t, c_uint64, c_void_p, cast, sizeof

FORKS = 1000
PATIENCE = 60  # seconds, for all of it: a child that hangs is ended and its result never comes

pb = ctypes.CDLL(sys.argv[1])
pb.pb_last_error.restype = c_char_p
Task = CFUNCTYPE(c_int32, c_void_p, c_size_t, c_void_p, c_void_p)
pb.pb_parallel_map.argtypes = [Task, c_void_p, c_size_t, c_void_p, c_size_t, c_void_p, c_size_t, c_void_p]
pb.pb_submit_map.argtypes = [*pb.pb_parallel_map.argtypes, POINTER(c_void_p)]
pb.pb_job_wait.argtypes = [c_void_p, ctypes.c_double]
pb.pb_job_free.argtypes = [c_void_p]
pb.pb_job_free.restype = None
pb.pb_pop_backend.argtypes = [c_uint64]


def check(status):
    if status != 0:
        raise RuntimeError(pb.pb_last_error().decode())


@Task
def square(ctx, index, input, output):
    cast(output, POINTER(c_int64))[0] = cast(input, POINTER(c_int64))[0] ** 2
    return 0


@Task
def nest(ctx, index, input, output):
    squares(3)
    return 0


# A native task: it does nothing, and succeeds.
nothing = cast(pb.pb_cancelled, Task)


class Map:
    """The arguments of a map of `square` over 0..n-1."""

    def __init__(self, n):
        self.inputs, self.outputs = (c_int64 * n)(*range(n)), (c_int64 * n)()
        size = sizeof(c_int64)
        self.arguments = square, None, n, self.inputs, size, self.outputs, size, None

    def check(self):
        assert list(self.outputs) == [i * i for i in self.inputs], list(self.outputs)


def squares(n):
    work = Map(n)
    check(pb.pb_parallel_map(*work.arguments))
    work.check()


def submit_and_wait(*arguments):
    job = c_void_p()
    check(pb.pb_submit_map(*arguments, byref(job)))
    check(pb.pb_job_wait(job, -1))
    pb.pb_job_free(job)


def submitted_squares(n):
    work = Map(n)
    submit_and_wait(*work.arguments)
    work.check()


def native_maps():
    arguments = nothing, None, 100, None, 0, None, 0, None
    check(pb.pb_parallel_map(*arguments))
    submit_and_wait(*arguments)


def use_everything():
    scope = c_uint64()
    check(pb.pb_push_backend(b"threading", 3, 0, None, byref(scope)))
    squares(10)
    check(pb.pb_parallel_map(nest, None, 4, None, 0, None, 0, None))
    submitted_squares(10)
    check(pb.pb_pop_backend(scope))


def in_child(number):
    signal.alarm(PATIENCE)
    use_everything()
    if number % 3 == 0:
        check(pb.pb_shutdown())
        use_everything()
    return os.getpid()


def count(folder):
    return len(os.listdir(f"/proc/self/{folder}"))


def main():
    sys.setswitchinterval(0.0002)  # many threads want the interpreter's lock
    context = multiprocessing.get_context("fork")
    with context.Pool(1):
        pass  # what multiprocessing itself opens once and keeps
    files = count("fd")
    stop = threading.Event()
    failures = []

    def use_until_stopped(number):
        try:
            for _ in range(10):
                use_everything()
            used.wait()
            while not stop.is_set():
                native_maps()
                if number == 0:
                    check(pb.pb_shutdown())
                stop.wait(0.001)  # with the interpreter's lock free for the thread that forks
        except Exception as failure:
            failures.append(failure)
            used.abort()

    used = threading.Barrier(4)
    threads = [threading.Thread(target=use_until_stopped, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    used.wait()
    # A worker for each task: the pool forks all the time, from a thread of its own.
    with context.Pool(2, maxtasksperchild=1) as pool:
        children = pool.map_async(in_child, range(FORKS), chunksize=1).get(timeout=PATIENCE)
        pool.close()
        pool.join()
    assert len(set(children)) == FORKS, "each task had a process of its own"
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures, failures
    use_everything()
    check(pb.pb_shutdown())
    del pool
    gc.collect()  # multiprocessing's own pipes
    while count("task") > 1:  # a thread that was joined may stay in the kernel's list for a moment
        pass
    assert count("fd") == files, f"{count('fd')} open files, {files} before"
    print(f"{FORKS} processes forked by multiprocessing")


if __name__ == "__main__":
    signal.alarm(2 * PATIENCE)
    main()
