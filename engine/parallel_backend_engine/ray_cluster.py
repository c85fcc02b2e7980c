"""Joining and leaving a Ray cluster, and what its exceptions mean. All of it blocks: not for the thread of the event loop."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import sys
import tempfile
import time
from pathlib import Path

from parallel_backend_engine.engine import EngineError

# Where a cluster of this machine leaves its address.
ADDRESS_FILE = "ray/ray_current_cluster"
OWN_FOLDER = "pb-ray-"
# Despite its name it does the same on Linux: 127.0.0.1 stays that, and is not replaced by an address that others can reach.
LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


class Cluster:
    """The cluster that an address means: `local`, `auto`, or host:port."""

    def __init__(self, address):
        known = os.environ.get("RAY_ADDRESS")
        self.address = known or address or "local" if address in (None, "", "auto") else address
        self._folder = None
        self._ray = None

    def __str__(self):
        return "the local Ray cluster" if self.address == "local" else f"the Ray cluster at {self.address}"

    def join(self, timeout):
        """Connects this process, or starts its own cluster; gives the module `ray`."""
        options = {"log_to_driver": False, "logging_level": "ERROR"}
        if self.address == "local":
            options |= self._own_cluster()
        else:
            self._find(timeout)
            options["address"] = self.address
        ray = _import_ray()
        try:
            ray.init(**options)
        except Exception as error:
            raise _refused(self, error) from None
        self._ray = ray
        return ray

    def cpus(self):
        """How many tasks of one CPU it can run at once."""
        return int(self._ray.cluster_resources().get("CPU", 0))

    def leave(self):
        if self._ray is not None:
            self._ray.shutdown()
        # Its processes are ending, and may write a last line meanwhile.
        end = time.monotonic() + 5
        while self._folder is not None and os.path.exists(self._folder) and time.monotonic() < end:
            shutil.rmtree(self._folder, ignore_errors=True)
            time.sleep(0.02)

    def _own_cluster(self):
        _sweep()
        os.environ[LOOPBACK] = "0"
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Nobody else is to use it. The token never leaves this process and its children.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        # A short path: names of Unix sockets are made from it, and may have 107 bytes.
        self._folder = tempfile.mkdtemp(prefix=f"{OWN_FOLDER}{os.getpid()}-", dir="/tmp")
        return {
            "num_cpus": len(os.sched_getaffinity(0)),
            "include_dashboard": False,
            "_node_ip_address": "127.0.0.1",
            # Ray opens it to everybody; what is around it is open to this user alone.
            "_temp_dir": os.path.join(self._folder, "r"),
        }

    def _find(self, timeout):
        """Looks whether somebody listens there: Ray itself would wait, and say less."""
        if self.address == "auto":
            self.address = _address_of_this_machine()
        if "://" in self.address:
            text = f"address={self.address}: a Ray client is not supported; run the program on a node of the cluster, with address=auto"
            raise EngineError("PB_ERR_INVALID_ARGUMENT", text)
        host, _, port = self.address.rpartition(":")
        if not host or not port.isdigit() or int(port) > 65535:
            text = f"address={self.address} of backend 'ray' is not 'local', 'auto' or HOST:PORT"
            raise EngineError("PB_ERR_INVALID_ARGUMENT", text)
        try:
            with socket.create_connection((host, int(port)), timeout) as connection:
                if connection.getpeername()[0].startswith("127."):
                    os.environ[LOOPBACK] = "0"
        except TimeoutError:
            raise EngineError("PB_ERR_TIMEOUT", f"{self} did not answer within {timeout:g} s") from None
        except OSError as error:
            text = f"{self} cannot be reached: {error.strerror or error}. Is it the address that `ray start --head` printed?"
            raise EngineError("PB_ERR_BACKEND_UNAVAILABLE", text) from None


def _address_of_this_machine():
    file = Path(os.environ.get("RAY_TMPDIR", "/tmp"), ADDRESS_FILE)
    try:
        return file.read_text().strip()
    except OSError:
        text = f"no Ray cluster runs on this machine (there is no '{file}'): run `ray start`, or pass address=HOST:PORT or address=local"
        raise EngineError("PB_ERR_BACKEND_UNAVAILABLE", text) from None


def _import_ray():
    try:
        import ray
    except ImportError as error:
        text = f"'{sys.executable}' has no Ray ({error}): run `{sys.executable} -m pip install ray`, or name another Python by PB_PYTHON or python="
        raise EngineError("PB_ERR_BACKEND_UNAVAILABLE", text) from None
    return ray


def _refused(cluster, error):
    text = str(error).strip()
    if "ersion mismatch" in text:
        return EngineError("PB_ERR_BACKEND_UNAVAILABLE", f"{cluster} has another Ray or Python than '{sys.executable}': {text}")
    return EngineError("PB_ERR_BACKEND_UNAVAILABLE", f"{cluster} cannot be joined: {type(error).__name__}: {text}")


def _sweep():
    """Removes folders of clusters whose bridge was killed: their processes have ended with it."""
    for folder in Path("/tmp").glob(f"{OWN_FOLDER}*"):
        pid = folder.name[len(OWN_FOLDER) :].split("-")[0]
        if pid.isdigit() and not Path("/proc", pid).exists():
            shutil.rmtree(folder, ignore_errors=True)


def first_line(error):
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def verdict(ray, error):
    """What an exception of a task means: (None, how its worker ended), or (the status of the call, why)."""
    kinds = ray.exceptions
    if isinstance(error, kinds.OutOfMemoryError):
        return None, f"was killed for want of memory: {first_line(error)}"
    if isinstance(error, (kinds.NodeDiedError, kinds.LocalRayletDiedError)):
        return None, f"was lost with its node: {first_line(error)}"
    if isinstance(error, kinds.WorkerCrashedError):
        return None, "died (a crash, exit, or kill; Ray's log of its node says more)"
    if isinstance(error, kinds.ObjectLostError):
        return None, f"died before its result was fetched: {first_line(error)}"
    if isinstance(error, kinds.TaskCancelledError):
        return None, "was told by Ray to stop"
    if isinstance(error, (kinds.ObjectStoreFullError, kinds.OutOfDiskError)):
        return "PB_ERR_OUT_OF_MEMORY", first_line(error)
    return "PB_ERR_INTERNAL", f"a task has failed: {type(error).__name__}: {error}"
