"""Ray clusters on 127.0.0.1, in processes of this program's own: `ray start --block` in a session of its own, whose processes
are ended one by one. `ray stop` would end every Ray process of the user."""

import contextlib
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

PATIENCE = 60
PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None)


class RayCluster:
    """A node with `cpus` CPUs. `entry` is what a program needs in its environment to be let in, `address` is host:port.

    `start` is the code that runs `ray start`, for clusters that are to be odd; `environment` is that of the node and its workers.
    """

    def __init__(self, cpus=2, environment=None, start="from ray.scripts.scripts import main; main()"):
        # Short: the paths of Unix sockets below it may have 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="pbr", dir="/tmp"))
        self.log = self.folder / "out"
        (self.folder / "tmp").mkdir()
        # Despite its name the first one keeps every port on 127.0.0.1 on Linux, too.
        secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self.entry = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", **secret}
        options = [
            "start", "--head", "--block", "--node-ip-address=127.0.0.1", "--port=0", f"--num-cpus={cpus}",
            "--object-store-memory=200000000", "--include-dashboard=false", "--include-log-monitor=false",
            "--no-monitor", "--disable-usage-stats", f"--temp-dir={self.folder / 'ray'}",
        ]  # fmt: skip
        # Files for temporary use are this cluster's own: its cache of libraries begins empty.
        environment = {**os.environ, **self.entry, "TMPDIR": str(self.folder / "tmp"), **(environment or {})}
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", start, *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
                start_new_session=True, preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
            )  # fmt: skip
        self.address = self._wait_for_address()

    def _wait_for_address(self):
        """Ray writes it last, after it has said that it runs."""
        file, end = self.folder / "ray/ray_current_cluster", time.monotonic() + PATIENCE
        while not (file.exists() and (address := file.read_text())):
            if time.monotonic() > end or self.process.poll() is not None:
                text = self.log.read_text()
                self.close()
                raise RuntimeError(f"no Ray cluster after {PATIENCE} s:\n{text}")
            time.sleep(0.05)
        return address

    def processes(self):
        """Those of the session, {pid: command line}; Ray's workers show there what they do."""
        return {pid: line for pid, line in command_lines().items() if _session_of(pid) == self.process.pid}

    def pid_of(self, program):
        """The one process whose program has this word in its name: gcs_server, raylet."""
        (pid,) = (pid for pid, line in self.processes().items() if program in line.split(" ")[0])
        return pid

    def busy_workers(self):
        """Workers that run a task."""
        return [pid for pid, line in self.processes().items() if line.startswith("ray::pb_chunk")]

    def close(self):
        # The leader last: it waits for its children.
        for pid in sorted(self.processes(), reverse=True):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def command_lines():
    """All processes that run, {pid: command line}."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return {pid: line for pid, line in found.items() if line}


def _session_of(pid):
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0
