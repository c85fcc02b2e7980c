"""Dask clusters on 127.0.0.1: scheduler and workers are processes of their own, as `dask scheduler` and `dask worker` start them."""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from distributed import Client

HERE = Path(__file__).resolve().parent


def wait_until(condition, what, patience=30):
    """Waits until condition() is true; gives its value. A deadline, so that a defect is a failure and not a hang."""
    deadline = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {patience} s: {what}")
        time.sleep(0.01)


def _die_with_parent():
    """Between fork and exec: nothing is left behind, however the tests end."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class DaskCluster:
    """A scheduler and `workers` workers with `threads` threads each. `environment` is theirs, `options` the workers'."""

    def __init__(self, workers=2, threads=1, environment=None, options=(), security=(), nanny=True):
        self._stack = contextlib.ExitStack()
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="pb-dask-")))
        self.scheduler_file = self.folder / "scheduler.json"
        # Files for temporary use are this cluster's own: its cache of libraries begins empty.
        (self.folder / "tmp").mkdir()
        self._environment = {"TMPDIR": str(self.folder / "tmp"), **(environment or {})}
        self._security = list(security)
        self._options, self._threads, self._nanny = list(options), threads, nanny
        self.processes = []
        try:
            self.scheduler = self._start(
                "scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", self.scheduler_file, *self._security
            )
            wait_until(self._address, "the scheduler writes its file")
            self.workers = [self.add_worker() for _ in range(workers)]
            if workers:
                self.wait_for_workers(workers)
        except BaseException:
            self.close()
            raise

    def _start(self, what, *arguments):
        module = f"distributed.cli.dask_{what}"
        command = [sys.executable, "-B", "-m", module, "--host", "127.0.0.1"]
        command += ["--protocol", "tls"] if self._security else []
        log = self._stack.enter_context(open(self.folder / f"{what}-{len(self.processes)}.log", "wb"))
        environment = {**os.environ, **self._environment, "DASK_DISTRIBUTED__ADMIN__LOG_FORMAT": "%(message)s"}
        process = subprocess.Popen(
            [*command, *map(str, arguments)], stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment,
            cwd=self.folder, start_new_session=True, preexec_fn=_die_with_parent,
        )
        self.processes.append(process)
        return process

    def add_worker(self, *options):
        """One more worker, with a nanny that starts it again when it dies."""
        nanny = [] if self._nanny else ["--no-nanny"]
        return self._start(
            "worker", "--scheduler-file", self.scheduler_file, "--nthreads", self._threads, "--nworkers", 1, "--no-dashboard",
            "--death-timeout", 20, "--local-directory", self.folder / "local", *nanny, *self._security, *self._options, *options,
        )

    def _address(self):
        with contextlib.suppress(OSError, ValueError, KeyError):
            return json.loads(self.scheduler_file.read_text())["address"]
        return None

    @property
    def address(self):
        return self._address()

    def params(self):
        return f"scheduler_file={self.scheduler_file}"

    def client(self, **more):
        return Client(self.address, timeout=20, set_as_default=False, **more)

    def wait_for_workers(self, count, **more):
        with self.client(**(more or self._client_security())) as client:
            client.wait_for_workers(count, timeout=60)

    def _client_security(self):
        if not self._security:
            return {}
        from distributed import Security

        named = dict(zip(self._security[::2], map(str, self._security[1::2])))
        ca, cert, key = (named[f"--tls-{what}"] for what in ("ca-file", "cert", "key"))
        return {"security": Security(tls_ca_file=ca, tls_client_cert=cert, tls_client_key=key, require_encryption=True)}

    def tasks(self):
        """How many tasks the scheduler knows."""
        with self.client() as client:
            return client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks))

    def logs(self):
        return "".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("*.log")))

    def close(self):
        # Each is the leader of a session of its own, in which a nanny's workers are too.
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for process in self.processes:
            process.wait()
        self._stack.close()
