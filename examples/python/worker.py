"""A worker process in Python: the library starts this program, and gives it one item after the other.

Each item is a text as bytes; its result is a JSON text with the number of its words and the longest of them. Python's lock is no
matter here, since each worker is a process of its own.
"""

import ctypes
import json
import os
import sys

pb = ctypes.CDLL(os.environ.get("PARALLEL_BACKEND_LIB", "libparallel_backend.so.0.1"))
pb.pb_output_write.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
pb.pb_task_fail.argtypes = [ctypes.c_char_p]
pb.pb_last_error.restype = ctypes.c_char_p

# pb_bytes_fn: user, index, input, its size, output
HANDLER = ctypes.CFUNCTYPE(
    ctypes.c_int32, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p
)
pb.pb_worker_serve.argtypes = [ctypes.c_int32, HANDLER, ctypes.c_void_p]


def examine(text: str) -> dict:
    words = text.split()
    return {"words": len(words), "longest": max(words, key=len, default=""), "worker": os.getpid()}


@HANDLER
def handle(_user, _index, data, size, output):
    # ctypes would only print an exception: the caller learns of it by a text and a code.
    try:
        text = ctypes.string_at(data, size).decode()
        result = json.dumps(examine(text)).encode()
    except Exception as error:
        pb.pb_task_fail(f"{type(error).__name__}: {error}".encode())
        return 1
    return pb.pb_output_write(output, result, len(result))


if __name__ == "__main__":
    # 3 is the descriptor that every worker is started with. The call returns when no more work is to come.
    if pb.pb_worker_serve(3, handle, None) != 0:
        sys.exit(pb.pb_last_error().decode())
