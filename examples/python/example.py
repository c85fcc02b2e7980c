"""A map of texts over worker processes that are Python programs (worker.py), called by ctypes.

The caller need not be in Python: what it passes to pb_map_bytes as a function is never called, since the workers have a handler
of their own. PARALLEL_BACKEND_LIB is the path of the library, where the loader does not find it.
"""

import ctypes
import json
import os
import sys
from ctypes import POINTER, Structure, byref, c_char_p, c_double, c_int32, c_size_t, c_uint32, c_uint64, c_void_p
from pathlib import Path

pb = ctypes.CDLL(os.environ.get("PARALLEL_BACKEND_LIB", "libparallel_backend.so.0.1"))
pb.pb_last_error.restype = c_char_p
pb.pb_results_free.argtypes = [c_void_p]

TASK_FAILED = -5
COLLECT_ERRORS = 0x08


class Bytes(Structure):
    _fields_ = [("data", c_char_p), ("size", c_size_t)]


class Result(Structure):
    _fields_ = [("data", c_void_p), ("size", c_size_t)]


class MapOptions(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("n_jobs", c_int32),
        ("flags", c_uint32),
        ("batch_size", c_size_t),
        ("timeout", c_double),
        ("ctx_size", c_size_t),
        ("task", c_char_p),
        ("statuses", POINTER(c_int32)),
        ("progress", c_void_p),
        ("progress_user", c_void_p),
        ("retries", c_uint32),
        ("reserved", c_uint32),
    ]


BytesFn = ctypes.CFUNCTYPE(c_int32, c_void_p, c_size_t, c_void_p, c_size_t, c_void_p)
pb.pb_map_bytes.argtypes = [BytesFn, c_void_p, c_size_t, POINTER(Bytes), POINTER(MapOptions), POINTER(c_void_p)]
pb.pb_results_get.argtypes = [c_void_p, c_size_t, POINTER(Result)]
pb.pb_push_backend.argtypes = [c_char_p, c_int32, c_int32, c_char_p, POINTER(c_uint64)]
pb.pb_pop_backend.argtypes = [c_uint64]


@BytesFn
def in_workers_only(*_arguments):
    return 1


def check(status):
    if status != 0:
        raise RuntimeError(pb.pb_last_error().decode())


def examine_all(texts: list[bytes]) -> list[dict | None]:
    """What worker.py finds in each text; None for one that it cannot read."""
    inputs = (Bytes * len(texts))(*(Bytes(text, len(text)) for text in texts))
    statuses = (c_int32 * len(texts))()
    options = MapOptions(ctypes.sizeof(MapOptions), flags=COLLECT_ERRORS, task=b"examine", statuses=statuses)
    results = c_void_p()
    status = pb.pb_map_bytes(in_workers_only, None, len(texts), inputs, byref(options), byref(results))
    if status == TASK_FAILED:
        print("the first failure:", pb.pb_last_error().decode())
    else:
        check(status)
    found = []
    for index, failed in enumerate(statuses):
        result = Result()
        if not failed:
            check(pb.pb_results_get(results, index, byref(result)))
        found.append(None if failed else json.loads(ctypes.string_at(result.data, result.size)))
    pb.pb_results_free(results)
    return found


def main():
    texts = [b"one text of five words", b"another", b"", b"\xff is not UTF-8", "drei schöne Wörter".encode()]
    worker = f"worker={sys.executable} -B {Path(__file__).with_name('worker.py')}"
    scope = c_uint64()
    check(pb.pb_push_backend(b"loky", 2, 0, worker.encode(), byref(scope)))
    found = examine_all(texts)
    check(pb.pb_pop_backend(scope))
    check(pb.pb_shutdown())
    for text, result in zip(texts, found):
        print(text, "->", result and f"{result['words']} words, the longest: {result['longest']!r}")
    assert [result and result["words"] for result in found] == [5, 1, 0, None, 3]
    assert found[4]["longest"] == "schöne"
    assert all(result["worker"] != os.getpid() for result in found if result)


if __name__ == "__main__":
    main()
