"""A Dask cluster as the engine `dask` sees it: the client, the shim on all of its members, and which workers there are."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib
import importlib.util
import logging
import os
import pkgutil
import shutil
import sys
import tempfile
import warnings

from parallel_backend_engine import shim as own_shim
from parallel_backend_engine.engine import EngineError

ADVICE = (
    "backend 'dask' needs \"address=tcp://HOST:8786\", \"scheduler_file=FILE\", or \"address=local\" for workers on this machine"
)


class Cluster:
    """A connection to a cluster. `count(key, default)` reads a number, `log(level, text)` tells people something."""

    def __init__(self, options, version, token, count, log):
        self._options, self._version, self._token = options, version, token
        self._count, self._log = count, log
        self._local = self._directory = None
        self.client = self.shim = None
        # Of each worker: its threads, its nanny's address, and how many chunks may run on its machine at once.
        self.threads, self._nannies, self._at_once = {}, {}, {}

    async def start(self, timeout):
        """Connects, and waits until there is a worker."""
        self._loop = asyncio.get_running_loop()
        deadline = self._loop.time() + timeout
        self._import()
        try:
            await self._connect(timeout)
            await self._bring_shim(deadline)
            await self._wait_for_workers(deadline)
        except asyncio.TimeoutError:
            raise EngineError(
                "PB_ERR_TIMEOUT", f"the Dask scheduler at {self.where()} did not answer within {timeout:g} s: is it one, and alive?"
            ) from None

    @property
    def engine_version(self):
        return self._distributed.__version__

    def slots(self):
        """How many chunks run at the same time."""
        return sum(self.threads.values())

    def is_connected(self):
        return self.client is not None and self.client.status == "running"

    async def run(self, function, *arguments, workers=None):
        """Runs a function on workers outside their queue; {address: result}, without those that are gone."""
        return await self.client.run(function, *arguments, workers=workers, on_error="ignore")

    def where(self):
        """The cluster, for people."""
        given = self._options.get("address") or self._options.get("scheduler_file")
        return given or self._dask.config.get("scheduler-address", None) or "?"

    def _import(self):
        try:
            # It sets the style of all log lines; what it asks for in its own configuration stays.
            self._distributed = importlib.import_module("distributed")
            self._dask = importlib.import_module("dask")
            self._plugins = importlib.import_module("distributed.diagnostics.plugin")
        except ImportError as error:
            raise EngineError(
                "PB_ERR_BACKEND_UNAVAILABLE",
                f"'{sys.executable}' cannot import 'distributed' ({error}): {sys.executable} -m pip install distributed, or name another Python "
                "(parameter python=, or PB_PYTHON)",
            ) from None
        self._dask.config.set({"distributed.admin.large-graph-warning-threshold": "4 GiB"})
        warnings.showwarning = lambda message, *_, **__: self._log("warning", str(message))

    async def _connect(self, timeout):
        target = {"address": self._options.get("address")}
        if target["address"] == "local":
            target = {"address": await asyncio.wait_for(self._local_cluster(), timeout)}
        elif self._options.get("scheduler_file"):
            target = {"scheduler_file": self._options["scheduler_file"]}
            if not os.path.exists(target["scheduler_file"]):
                raise EngineError("PB_ERR_BACKEND_UNAVAILABLE", f"there is no scheduler file '{target['scheduler_file']}'")
        elif not target["address"]:
            target["address"] = self._dask.config.get("scheduler-address", None)
            if not target["address"]:
                raise EngineError("PB_ERR_INVALID_ARGUMENT", f"{ADVICE}; DASK_SCHEDULER_ADDRESS in the environment will do too")
        try:
            self.client = self._distributed.Client(
                **target, asynchronous=True, timeout=0.9 * timeout, security=self._security(), set_as_default=False, name="parallel_backend"
            )
            await asyncio.wait_for(self.client, timeout)
        except (EngineError, asyncio.TimeoutError):
            raise
        except Exception as error:  # of many kinds: no route, no scheduler, other versions, no TLS where it is needed
            status = "PB_ERR_TIMEOUT" if "imed out" in str(error) else "PB_ERR_BACKEND_UNAVAILABLE"
            text = str(error) or type(error).__name__
            raise EngineError(status, f"no Dask scheduler at {self.where()}: {text}") from None

    def _security(self):
        keys = {"tls_ca": "tls_ca_file", "tls_cert": "tls_client_cert", "tls_key": "tls_client_key"}
        given = {theirs: self._options[ours] for ours, theirs in keys.items() if ours in self._options}
        for path in given.values():
            if not os.access(path, os.R_OK):
                raise EngineError("PB_ERR_INVALID_ARGUMENT", f"'{path}' cannot be read")
        return self._distributed.Security(**given, require_encryption=True) if given else None

    async def _local_cluster(self):
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        threads = self._count("threads", 1)
        self._local = self._distributed.LocalCluster(
            n_workers=max(1, cpus // threads), threads_per_worker=threads, processes=True, host="127.0.0.1", dashboard_address=None,
            asynchronous=True, silence_logs=logging.ERROR,
        )
        await self._local
        return self._local.scheduler_address

    async def _bring_shim(self, deadline):
        """Makes the shim's functions importable on the scheduler, which reads every task, and on all workers, now and later."""
        source = own_shim.__spec__.loader.get_source(own_shim.__name__)
        digest = hashlib.sha256(source.encode()).hexdigest()
        if self._local is None and await self._is_installed(digest, deadline):
            self.shim = own_shim
            return
        # The same name and bytes for all sessions of this version: who comes second finds it there.
        name = f"_pb_worker_{self._version.replace('.', '_').replace('-', '_')}_{digest[:8]}"
        self._directory = tempfile.mkdtemp(prefix="pb-bridge-")
        path = os.path.join(self._directory, f"{name}.py")
        with open(path, "w", encoding="utf-8") as file:
            file.write(source)
        sys.path.insert(0, self._directory)
        self.shim = importlib.import_module(name)
        self._shim_plugins = []
        for kind in (self._plugins.SchedulerUploadFile, self._plugins.UploadFile):
            plugin = kind(path, load=True)
            plugin.idempotent = True
            self._shim_plugins.append(plugin)
            try:
                await self._within(deadline, self.client.register_plugin(plugin, name=f"{name}-{kind.__name__}"))
            except EngineError:
                raise
            except (OSError, ValueError, RuntimeError) as error:
                raise EngineError(
                    "PB_ERR_BACKEND_UNAVAILABLE",
                    f"the Dask scheduler at {self.where()} takes no upload ({error}): install the package "
                    "'parallel-backend-engine' of this version on scheduler and workers",
                ) from None

    async def _is_installed(self, digest, deadline):
        """Whether scheduler and workers have this very package."""
        package, what = "parallel_backend_engine", "parallel_backend_engine.shim:SOURCE_SHA256"
        try:
            # Asked first, since it is no error where there is none, and leaves no trace in the scheduler's log.
            if await self._within(deadline, self.client.run_on_scheduler(importlib.util.find_spec, package)) is None:
                return False
            there = await self._within(deadline, self.client.run_on_scheduler(pkgutil.resolve_name, what))
            if there != digest:
                return False
            there = await self._within(deadline, self.client.run(pkgutil.resolve_name, what))
        except (ImportError, AttributeError, ValueError):
            return False
        return all(value == digest for value in there.values())

    async def _within(self, deadline, awaitable):
        return await asyncio.wait_for(awaitable, max(0.1, deadline - self._loop.time()))

    async def _wait_for_workers(self, deadline):
        await self.look(deadline)
        if self.threads:
            return
        # Clusters that scale by demand start workers for a task that waits.
        probe = self.client.submit(self.shim.whereabouts, key=f"parallel_backend_probe-{self._token}", pure=False)
        try:
            while not self.threads:
                if self._loop.time() > deadline:
                    raise EngineError(
                        "PB_ERR_TIMEOUT",
                        f"the Dask scheduler at {self.where()} has no workers, and got none in time: start some (dask worker "
                        f"ADDRESS), or wait longer (start_timeout=SECONDS)",
                    )
                await asyncio.sleep(0.1)
                await self.look(deadline)
        finally:
            await self.client.cancel([probe])

    async def look(self, deadline):
        """Reads which workers there are, and what is left of each machine for a chunk."""
        threads = await self._within(deadline, self.client.scheduler.ncores())
        if threads == self.threads:
            return
        about = await self._within(deadline, self.client.scheduler.identity(n_workers=-1))
        workers = about["workers"]
        self._nannies.update((address, worker.get("nanny")) for address, worker in workers.items())
        at_once = {}
        for worker in workers.values():
            at_once[worker["host"]] = at_once.get(worker["host"], 0) + worker["nthreads"]
        shares = {address: at_once[worker["host"]] for address, worker in workers.items()}
        for share in set(shares.values()):
            fresh = [address for address, value in shares.items() if value == share and self._at_once.get(address) != share]
            if fresh:
                await self._within(deadline, self.run(self.shim.set_share, share, workers=fresh))
        self.threads, self._at_once = threads, shares

    async def how(self, worker):
        """What became of a worker, for a text that names it: in the words of its nanny's log where there is one."""
        nanny = self._nannies.get(worker)
        with contextlib.suppress(Exception):
            if nanny:
                ask = self.client.scheduler.broadcast(msg={"op": "get_logs", "n": 20}, workers=[nanny], on_error="ignore")
                logs = (await asyncio.wait_for(ask, 1.0)).get(nanny, ())
                lines = [line for _, line in logs if "killed by" in line or "exited with" in line or "memory" in line]
                if lines:
                    return f"died: {lines[0].strip()}"
        return "died"

    async def repair_shim(self):
        """For a worker that came while the shim was on its way to the others."""
        if self._directory is None:
            return False
        await self.client.register_plugin(self._shim_plugins[1], name=f"{self.shim.__name__}-again-{self._token}")
        return True

    async def close(self):
        with contextlib.suppress(Exception):
            # One that is not connected would wait for a scheduler that is not there; the process is about to end.
            if self.is_connected():
                await asyncio.wait_for(self.client._close(fast=True), 3)
        with contextlib.suppress(Exception):
            if self._local is not None:
                await asyncio.wait_for(self._local.close(), 5)
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
