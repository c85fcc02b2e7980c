"""A Ray cluster of one node on the loopback interface, whose processes are this program's own to kill.

`ray stop` ends every Ray process of the user, so it is not for us: `ray start --block` runs in a session of its own instead, and that
group is ended. Its processes die with this program, too.
"""

import ctypes
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

START_SECONDS = 60
PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class RayCluster:
    """`with RayCluster(cpus=2) as cluster:` and then `cluster.address`, which is host:port."""

    def __init__(self, cpus: int = 2, object_store_bytes: int = 200_000_000, python: str = sys.executable):
        # Short: the paths of Unix sockets below it may have 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="pbr", dir="/tmp"))
        self.log = self.folder / "out"
        self.environment = dict(
            os.environ,
            # Despite its name, this keeps every port on 127.0.0.1 on Linux too.
            RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0",
            RAY_AUTH_MODE="token",
            RAY_AUTH_TOKEN=secrets.token_hex(32),
        )
        options = [
            "--head", "--block", "--node-ip-address=127.0.0.1", "--port=0", f"--num-cpus={cpus}",
            f"--object-store-memory={object_store_bytes}", "--include-dashboard=false", "--include-log-monitor=false",
            "--no-monitor", "--disable-usage-stats", f"--temp-dir={self.folder / 'ray'}",
        ]  # fmt: skip
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [python, "-m", "ray.scripts.scripts", "start", *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        self.address = self._wait()

    def _wait(self) -> str:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            if "Ray runtime started" in self.log.read_text():
                return (self.folder / "ray/ray_current_cluster").read_text()
            time.sleep(0.05)
        text = self.log.read_text()
        self.stop()
        raise RuntimeError(f"ray start did not start a cluster within {START_SECONDS} s:\n{text}")

    def processes(self) -> dict[int, str]:
        """The cluster's processes, with the command lines that they show."""
        return {pid: line for pid, line in command_lines().items() if _session(pid) == self.process.pid}

    def pid_of(self, name: str) -> int:
        """The one process whose command line has this word: gcs_server, raylet."""
        (pid,) = (pid for pid, line in self.processes().items() if name in line.split(" ")[0])
        return pid

    def stop(self) -> None:
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.stop()


def command_lines() -> dict[int, str]:
    """All processes that run."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                pass
    return found


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0
