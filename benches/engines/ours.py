"""The library by ctypes: just enough to run the kernel on a backend and to look at the results."""

import ctypes
from pathlib import Path


class MapOptions(ctypes.Structure):
    """pb_map_options."""

    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("n_jobs", ctypes.c_int32),
        ("flags", ctypes.c_uint32),
        ("batch_size", ctypes.c_size_t),
        ("timeout", ctypes.c_double),
        ("ctx_size", ctypes.c_size_t),
        ("task", ctypes.c_char_p),
        ("statuses", ctypes.c_void_p),
        ("progress", ctypes.c_void_p),
        ("progress_user", ctypes.c_void_p),
        ("retries", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
    ]


class Library:
    def __init__(self, prefix: Path, kernel: Path):
        self.pb = ctypes.CDLL(str(prefix / "lib/libparallel_backend.so"))
        self.pb.pb_last_error.restype = ctypes.c_char_p
        self.task = ctypes.cast(ctypes.CDLL(str(kernel)).burn_task, ctypes.c_void_p)

    def check(self, status: int) -> None:
        if status:
            raise RuntimeError(self.pb.pb_last_error().decode())

    def push(self, backend: str, params: str) -> ctypes.c_uint64:
        scope = ctypes.c_uint64()
        self.check(self.pb.pb_push_backend(backend.encode(), 0, 0, params.encode(), ctypes.byref(scope)))
        return scope

    def pop(self, scope: ctypes.c_uint64) -> None:
        self.check(self.pb.pb_pop_backend(scope))
        self.check(self.pb.pb_shutdown())

    def burn(self, seconds: float, items: int, batch: int = 0) -> None:
        """Runs `items` items of `seconds` each, in chunks of `batch`, or as the library thinks best."""
        ctx, outputs = ctypes.c_double(seconds), (ctypes.c_double * items)()
        options = MapOptions(ctypes.sizeof(MapOptions), batch_size=batch, ctx_size=ctypes.sizeof(ctx))
        self.check(
            self.pb.pb_parallel_map(
                self.task, ctypes.byref(ctx), ctypes.c_size_t(items), None, ctypes.c_size_t(0),
                outputs, ctypes.c_size_t(ctypes.sizeof(ctypes.c_double)), ctypes.byref(options),
            )
        )  # fmt: skip
        if list(outputs) != list(range(items)):
            raise RuntimeError("wrong results")
