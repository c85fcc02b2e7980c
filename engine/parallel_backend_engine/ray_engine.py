"""The engine `ray`: every chunk is a plain Ray task that asks for one CPU, so that the cluster places it, and grows for it.

- A task is not started again by Ray (`max_retries=0`): the library does that, item by item, and counts.
- What all chunks of a call share is put into Ray's object store once: ctx, which a node fetches once, and the
  bytes of libraries, which only a worker that lacks them fetches.
- Results come by a callback for each reference on a thread of Ray's, which wakes the loop once for all that have come.
- A Ray that cannot reach its cluster's control service ends its process after a minute; so the cluster is asked for its CPUs
  every two seconds, and a silence ends the session first.

`address=local` starts a cluster of this process's own on 127.0.0.1, `auto` joins the one that runs on this machine, `host:port`
that one; without an address it is RAY_ADDRESS, else `local`. Secrets (RAY_AUTH_TOKEN, RAY_TLS_…) stay in the environment.
"""

from __future__ import annotations

import asyncio
import collections
import hashlib
import pickle

from parallel_backend_engine import engine, ray_cluster, ray_worker, shim

# Seconds. One task costs the driver and the worker about this much of their CPUs.
SLOT_COST = 0.0002
# A chunk that takes less is not worth its task.
LEAST = 0.5
# The part of engine.CANCEL_GRACE that is for killing workers whose tasks do not listen.
FORCE_GRACE = 1.5
CHUNK_BYTES = 8 << 20
# Bytes on their way: as many for each slot as keep it busy, within what the driver can hold.
CREDIT, CREDIT_MOST = 64 << 20, 1 << 30


def task_function(shim_source, worker_source, name):
    """The function of all tasks. Pickled by value, as functions inside functions are: no module of ours is needed to read it."""

    def pb_chunk(head, message, ctx=None, files=()):
        import sys
        import types

        if name not in sys.modules:
            whole = types.ModuleType(name)
            for part, source in (("shim", shim_source), ("worker", worker_source)):
                module = types.ModuleType(f"{name}.{part}")
                exec(compile(source, f"<{name}.{part}>", "exec"), module.__dict__)
                setattr(whole, part, module)
            sys.modules[name] = whole
        ours = sys.modules[name]
        return ours.worker.run_chunk(ours.shim, head, message, ctx, files)

    return pb_chunk


class Books:
    """What the engine keeps of a call."""

    def __init__(self):
        self.ctx = None
        self.waiting = {}  # reference: chunk
        self.is_over = asyncio.Event()  # set once nothing runs any more, after cancel

    def arguments(self, head, chunk, files):
        arguments = [head, chunk.message]
        if self.ctx is not None or files:
            arguments.append(self.ctx)
        if files:
            arguments.append(files)
        return arguments


class RayEngine(engine.Engine):
    name = "ray"
    parameters = frozenset(("address", "engine_timeout", "idle_timeout", "python", "stall_timeout", "start_timeout"))

    async def start(self, timeout):
        self._loop = asyncio.get_running_loop()
        self._patience = self.number("engine_timeout", engine.ENGINE_TIMEOUT)
        self._calls, self._books, self._files = {}, {}, {}
        self._arrived, self._is_woken, self._is_closed = collections.deque(), False, False
        self._cluster = ray_cluster.Cluster(self.options.get("address"))
        # On another thread: it takes seconds, and must not take the signal handlers of this one.
        starting = self._loop.run_in_executor(None, self._cluster.join, timeout)
        try:
            self._ray = await asyncio.wait_for(asyncio.shield(starting), timeout)
        except asyncio.TimeoutError:
            text = f"{self._cluster} did not answer within {timeout:g} s: is this the address that `ray start --head` printed?"
            raise engine.EngineError("PB_ERR_TIMEOUT", text) from None
        self._slots = await self._first_slots(timeout)
        self._watch = asyncio.ensure_future(self._watch_cluster())
        sources = [module.__loader__.get_source(module.__name__) for module in (shim, ray_worker)]
        name = "_pb_ray_" + hashlib.sha256("".join(sources).encode()).hexdigest()[:16]
        self._task = self._ray.remote(num_cpus=1, max_retries=0)(task_function(*sources, name))
        credit = min(max(CREDIT, self._slots << 20), CREDIT_MOST)
        return engine.Ready(self._ray.__version__, self._slots, SLOT_COST, LEAST, CHUNK_BYTES, credit)

    # ---- the cluster ----------------------------------------------------------------------------------------------------

    async def _first_slots(self, timeout):
        """The cluster's CPUs. Where it has none a task that waits for one may make it start a node."""
        end = self._loop.time() + timeout
        slots, probe = self._cluster.cpus(), None
        while slots == 0:
            if probe is None:
                probe = self._ray.remote(num_cpus=1, max_retries=0)(lambda: None).remote()
            if self._loop.time() > end:
                self._ray.cancel(probe)
                text = f"{self._cluster} has no CPU for tasks after {timeout:g} s: start a node with CPUs (`ray start --address=...`)"
                raise engine.EngineError("PB_ERR_TIMEOUT", text)
            await asyncio.sleep(0.2)
            slots = self._cluster.cpus()
        return slots

    async def _watch_cluster(self):
        """Tells when the number of CPUs has changed, and when nobody answers any more. (Where there are none for long, the
        library ends its calls.)"""
        answered = self._loop.time()
        while not self._is_closed:
            await asyncio.sleep(engine.SLOTS_EVERY)
            slots = await self._slots_until(answered + self._patience)
            if slots is not None:
                answered = self._loop.time()
                if slots != self._slots:
                    self._slots = slots
                    self.events.slots(slots)
            elif self._loop.time() >= answered + self._patience:
                text = f"{self._cluster} is gone: its control service (GCS) has not answered for {self._patience:g} s"
                self.events.fatal("PB_ERR_WORKER_LOST", text)
                return

    async def _slots_until(self, deadline):
        """The cluster's CPUs; None where it does not say until then."""
        asking = self._loop.run_in_executor(None, self._cluster.cpus)
        try:
            return await asyncio.wait_for(asking, max(0.1, deadline - self._loop.time()))
        except Exception:  # a timeout, or whatever Ray says of a cluster that is gone
            return None

    # ---- calls ----------------------------------------------------------------------------------------------------------

    async def open_call(self, call):
        books = self._books[call.number] = Books()
        self._calls[call.number] = call
        if call.ctx is not None:
            # On another thread: it copies all of it.
            books.ctx = await self._loop.run_in_executor(None, self._put, pickle.PickleBuffer(call.ctx))

    async def submit(self, call, chunks):
        for chunk in chunks:
            self._send(call, chunk)

    def _send(self, call, chunk, files=()):
        books = self._books[call.number]
        head = ray_worker.head_of(call.number, self._calls, call.spec)
        # Once a worker has asked for files, those that ask next get them with their chunk.
        files = files or [self._files[file.sha256] for file in call.files if file.sha256 in self._files]
        reference = self._task.remote(*books.arguments(head, chunk, files))
        books.waiting[reference] = chunk
        reference.future().add_done_callback(lambda future: self._arrive(call, reference, future))

    async def _send_files(self, call, chunk, wanted):
        """Starts a chunk again on a worker that lacked files."""
        try:
            for sha256 in wanted:
                if sha256 not in self._files:
                    file = call.file(sha256)
                    content = await self._loop.run_in_executor(None, file.content)
                    # In a list, so that it is fetched by those alone that open it.
                    self._files[sha256] = (file.name, sha256, [self._put(content)])
            if call.number in self._books and not call.is_cancelled:
                self._send(call, chunk)
        except engine.EngineError as error:
            self.events.failed(call, error.status, error.text)
        except Exception as error:  # Ray's, of many kinds: the chunk must be answered all the same
            text = f"{self._cluster} could not be sent a library: {type(error).__name__}: {error}"
            self.events.failed(call, "PB_ERR_IO", text)

    def _put(self, value):
        try:
            return self._ray.put(value)
        except Exception as error:
            text = f"{self._cluster} cannot store an object: {ray_cluster.first_line(error)}"
            raise engine.EngineError("PB_ERR_OUT_OF_MEMORY", text) from None

    # ---- results --------------------------------------------------------------------------------------------------------

    def _arrive(self, call, reference, future):
        """On a thread of Ray's."""
        self._arrived.append((call, reference, future))
        # The flag may be cleared by the loop at any moment; a wake-up too many does no harm.
        if not self._is_woken:
            self._is_woken = True
            self._loop.call_soon_threadsafe(self._take_arrived)

    def _take_arrived(self):
        self._is_woken = False
        done = collections.defaultdict(list)
        while self._arrived:
            call, reference, future = self._arrived.popleft()
            books = self._books.get(call.number)
            chunk = books.waiting.pop(reference, None) if books is not None else None
            if chunk is None:
                continue
            if call.is_cancelled:
                if not books.waiting:
                    books.is_over.set()
            elif future.exception() is not None:
                self._fail(call, chunk, future.exception())
            else:
                self._settle(call, chunk, ray_worker.outcome_of(future.result()), done)
        for call, chunks in done.items():
            self.events.results(call, chunks)

    def _settle(self, call, chunk, outcome, done):
        kind, worker, *more = outcome
        if kind == "done":
            done[call].append((chunk.seq, more[0], 1, worker))
        elif kind == "need":
            asyncio.ensure_future(self._send_files(call, chunk, more[0]))
        elif kind == "error":
            self.events.failed(call, *more)
        else:  # an interrupt that was not ours: somebody used Ray's own tools on the task
            self.events.lost(call, [(chunk.seq, 1, worker, "was interrupted")])

    def _fail(self, call, chunk, error):
        """Ray has no result of a task."""
        status, how = ray_cluster.verdict(self._ray, error)
        if status is None:
            self.events.lost(call, [(chunk.seq, 1, str(self._cluster), how)])
        else:
            self.events.failed(call, status, f"{self._cluster}: {how}")

    # ---- ends -----------------------------------------------------------------------------------------------------------

    async def cancel(self, call):
        books = self._books.get(call.number)
        if books is None or not books.waiting:
            return 0, []
        self._interrupt(books, force=False)
        if not await self._ends(books, engine.CANCEL_GRACE - FORCE_GRACE):
            # A task that does not listen loses its worker process, which nobody shares with it.
            self._interrupt(books, force=True)
            await self._ends(books, FORCE_GRACE)
        return len(books.waiting), [f"Ray task {reference.task_id().hex()}" for reference in books.waiting]

    def _interrupt(self, books, force):
        for reference in list(books.waiting):
            self._ray.cancel(reference, force=force)

    async def _ends(self, books, seconds):
        try:
            await asyncio.wait_for(books.is_over.wait(), seconds)
        except asyncio.TimeoutError:
            return False
        return True

    async def end(self, call):
        self._books.pop(call.number, None)
        self._calls.pop(call.number, None)

    async def close(self):
        self._is_closed = True
        if getattr(self, "_watch", None) is not None:
            self._watch.cancel()
        if getattr(self, "_cluster", None) is not None:
            await self._loop.run_in_executor(None, self._cluster.leave)
