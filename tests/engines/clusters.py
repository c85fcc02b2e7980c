"""Clusters of Dask and Ray on the loopback interface, in processes of this program's own, which end with it.

Their own stop commands are not used: `ray stop` ends every Ray process of the user. Each cluster is a session of processes
instead, and what is in that session is ended.
"""

import contextlib
import ctypes
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

START_SECONDS = 60
PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None)


class Session:
    """A program with all the processes that it starts, and a folder for their files."""

    def __init__(self, command: list[str], folder: Path, environment: dict[str, str]):
        self.folder, self.log = folder, folder / "out"
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
                preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
            )

    def wait_for(self, ready: Callable[[], bool]) -> None:
        end = time.monotonic() + START_SECONDS
        while not ready():
            if time.monotonic() > end or self.process.poll() is not None:
                text = self.log.read_text()
                self.stop()
                raise RuntimeError(f"{self.process.args} is not ready after {START_SECONDS} s:\n{text}")
            time.sleep(0.05)

    def processes(self) -> dict[int, str]:
        """Those of the session, with their command lines."""
        return {pid: line for pid, line in command_lines().items() if _session_of(pid) == self.process.pid}

    def pid_of(self, program: str) -> int:
        """The one process whose program has this word in its name."""
        (pid,) = (pid for pid, line in self.processes().items() if program in line.split(" ")[0])
        return pid

    def stop(self) -> None:
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


class RayCluster(Session):
    """A node of Ray. `entry` is what a program needs in its environment to be let in."""

    def __init__(self, cpus: int = 2):
        # Short: the paths of Unix sockets below it may have 107 bytes.
        folder = Path(tempfile.mkdtemp(prefix="pbr", dir="/tmp"))
        # Despite the first one's name it keeps every port on 127.0.0.1 on Linux, too.
        secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self.entry = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", **secret}
        options = [
            "--head", "--block", "--node-ip-address=127.0.0.1", "--port=0", f"--num-cpus={cpus}",
            "--object-store-memory=200000000", "--include-dashboard=false", "--include-log-monitor=false",
            "--no-monitor", "--disable-usage-stats", f"--temp-dir={folder / 'ray'}",
        ]  # fmt: skip
        super().__init__(["ray.scripts.scripts", "start", *options], folder, dict(os.environ, **self.entry))
        self.wait_for(lambda: "Ray runtime started" in self.log.read_text())
        self.address = (folder / "ray/ray_current_cluster").read_text()


@contextlib.contextmanager
def ray_cluster(cpus: int = 2) -> Iterator[RayCluster]:
    cluster = RayCluster(cpus)
    try:
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(cluster.folder, ignore_errors=True)


@contextlib.contextmanager
def dask_cluster(workers: int = 2) -> Iterator[str]:
    """A scheduler and workers of one thread each; gives the scheduler's address."""
    folder = Path(tempfile.mkdtemp(prefix="pbd"))
    file, sessions = folder / "scheduler.json", []
    place = ["--scheduler-file", str(file), "--host", "127.0.0.1", "--no-dashboard"]
    try:
        sessions.append(Session(["dask", "scheduler", *place, "--port", "0"], folder, dict(os.environ)))
        sessions[0].wait_for(file.exists)
        options = ["--nthreads", "1", "--nworkers", str(workers), "--local-directory", str(folder)]
        sessions.append(Session(["dask", "worker", *place, *options], folder, dict(os.environ)))
        sessions[1].wait_for(lambda: sessions[1].log.read_text().count("Registered to:") == workers)
        yield json.loads(file.read_text())["address"]
    finally:
        for session in reversed(sessions):
            session.stop()
        shutil.rmtree(folder, ignore_errors=True)


def command_lines() -> dict[int, str]:
    """All processes that run."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return found


def _session_of(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0
