"""The engine `dask`: chunks as plain tasks of a Dask cluster.

Each chunk is a task with a key of its own, so nothing is ever taken for a result that is known already. The task's function
lives in the shim, a module that is imported by name: scheduler and workers have this package installed, or get the shim
uploaded under a name with its hash. What a worker lacks (a library) it asks for, gets outside the queue of tasks, and the
chunk is sent again.

Deaths. Dask itself runs the tasks of a dead worker again, three times, whatever `retries` says. So the engine listens to the
scheduler's events: of the chunks that a dead worker had, the oldest, as many as it had threads, were running; they are taken
back and reported as lost, and the library decides. The others had not begun: Dask runs them elsewhere.

Everything here is on the loop's one thread. A chunk that is under way is a `Flight`; it is in `self._flights` from submit
until it is answered, and each has a task that awaits its future.
"""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import contextlib

from parallel_backend_engine import engine
from parallel_backend_engine.dask_cluster import Cluster
from parallel_backend_engine.engine import EngineError

# A ctx from this size on is scattered once, a smaller one rides with every chunk.
SCATTER_FROM = 256 << 10
# What a task costs the scheduler, and the shortest chunk that is worth it, in seconds.
SLOT_COST, LEAST = 1e-3, 0.5
# Bytes on their way: as many for each slot as keep it busy, within what scheduler and bridge can hold.
CREDIT, CREDIT_MOST = 256 << 20, 1 << 30
# How many results, bytes of them, and seconds the cluster may keep what nobody needs any more.
DONE_MOST, DONE_BYTES, DONE_AFTER = 64, 8 << 20, 0.1
# How often a chunk may be sent again for reasons that are not its own.
RESENDS = 20
GIVEN_UP_KEPT = 1000


class Flight:
    """A chunk under way."""

    def __init__(self, call, chunk, order):
        self.call, self.chunk, self.order = call, chunk, order
        self.key = self.future = None
        self.resends = 0
        self.is_over = False


class CallState:
    """What the engine keeps for a call."""

    def __init__(self):
        self.flights = set()
        # The future of a scattered ctx, a task that makes it, and how often it was made.
        self.ctx = None
        self.scattering = None
        self.scatters = 0


class DaskEngine(engine.Engine):
    name = "dask"
    parameters = frozenset(("address", "scheduler_file", "tls_ca", "tls_cert", "tls_key", "engine_timeout", "threads"))

    def __init__(self, options, version, events):
        super().__init__(options, version, events)
        self._token = engine.fresh_token()
        self._cluster = Cluster(options, version, self._token, self.count, events.log)
        self._poll = None
        # By number of call; by key; by (worker, sha256).
        self._calls, self._flights, self._uploads = {}, {}, {}
        self._count = 0
        # The last chunks that were reported as lost, by key: Dask may start them once more before it hears that nobody wants them.
        self._given_up = collections.deque(maxlen=GIVEN_UP_KEPT)
        self._is_closing = False
        self._background = set()
        # Futures of chunks that are over, the bytes of their results, and the timer that lets them go.
        self._done, self._done_bytes, self._letting_go = [], 0, None

    async def start(self, timeout):
        self._loop = asyncio.get_running_loop()
        self._patience = self.number("engine_timeout", engine.ENGINE_TIMEOUT)
        await self._cluster.start(timeout)
        self._client, self._shim = self._cluster.client, self._cluster.shim
        self._client.subscribe_topic("all", self._on_event)
        self._poll = asyncio.ensure_future(self._watch())
        slots = self._cluster.slots()
        credit = min(max(CREDIT, slots << 20), CREDIT_MOST)
        return engine.Ready(self._cluster.engine_version, slots, SLOT_COST, LEAST, chunk_bytes=64 << 20, credit=credit)

    async def _watch(self):
        """Re-reads the slots; notices a scheduler that has gone or is silent. (Where there are no slots for long, the library
        ends its calls.)"""
        while True:
            await asyncio.sleep(engine.SLOTS_EVERY)
            before = self._cluster.slots()
            try:
                await self._cluster.look(self._loop.time() + self._patience)
            except asyncio.TimeoutError:
                self._gone(f"has not answered for {self._patience:g} s")
            except OSError as error:
                self._gone(f"is gone ({error})")
            except Exception as error:  # an answer that is none: the next one may be better
                self.events.log("warning", f"the Dask scheduler's answer cannot be read: {error}")
            if self._cluster.slots() != before:
                self.events.slots(self._cluster.slots())

    def _gone(self, how):
        if not self._is_closing:
            self._is_closing = True
            self.events.fatal("PB_ERR_WORKER_LOST", f"the Dask scheduler at {self._cluster.where()} {how}")

    def _spawn(self, coroutine):
        task = asyncio.ensure_future(coroutine)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    # ---- chunks out -------------------------------------------------------------------------------------------------

    def _state(self, call):
        return self._calls.setdefault(call.number, CallState())

    async def open_call(self, call):
        if call.once_only:
            raise EngineError(
                "PB_ERR_UNSUPPORTED",
                "backend 'dask' cannot promise PB_NON_IDEMPOTENT: Dask runs a task again when a worker with its result dies",
            )
        if call.ctx is not None and len(call.ctx) >= SCATTER_FROM:
            await self._scatter(call, self._state(call))

    async def _scatter(self, call, state):
        """Brings a large ctx to the cluster. Several that find it lost at the same time bring it once."""
        if state.scattering is None:
            state.scattering = self._spawn(self._scatter_once(call, state))
        await asyncio.shield(state.scattering)

    async def _scatter_once(self, call, state):
        try:
            state.scatters += 1
            # A name that was never used: Dask cancels what has the name of something that was let go.
            key = f"parallel_backend_ctx-{self._token}-{call.number}-{state.scatters}"
            futures = await self._client.scatter({key: bytes(call.ctx)}, hash=False, broadcast=False)
            state.ctx = futures[key]
        finally:
            state.scattering = None

    async def submit(self, call, chunks):
        flights = []
        for chunk in chunks:
            self._count += 1
            flights.append(Flight(call, chunk, self._count))
        self._state(call).flights.update(flights)
        self._send(call, flights)

    def _send(self, call, flights):
        """Hands chunks to Dask, in one message."""
        state = self._state(call)
        group = f"parallel_backend-{self._token}{call.number:016x}"
        for flight in flights:
            flight.key = (group, flight.chunk.seq, flight.resends)
            self._flights[flight.key] = flight
        count = len(flights)
        columns = [[call.spec] * count, [flight.chunk.message for flight in flights]]
        if call.ctx is not None:
            columns.append([state.ctx if state.ctx is not None else bytes(call.ctx)] * count)
        futures = self._client.map(self._shim.run_chunk, *columns, key=[flight.key for flight in flights], pure=False)
        for flight, future in zip(flights, futures):
            flight.future = future
            self._spawn(self._follow(flight, future))

    def _release_later(self, future, size):
        """Lets the scheduler forget a result: many at once, or when nothing else goes on. For client, scheduler and workers send
        each other at most one message in some milliseconds, and the next call's chunks would wait for one that only says this."""
        self._done.append(future)
        self._done_bytes += size
        if self._done_bytes > DONE_BYTES or len(self._done) > DONE_MOST:
            self._release()
            return
        if self._letting_go is not None:
            self._letting_go.cancel()
        self._letting_go = self._loop.call_later(DONE_AFTER, self._release)

    def _release(self):
        self._done.clear()
        self._done_bytes = 0
        if self._letting_go is not None:
            self._letting_go.cancel()
            self._letting_go = None

    async def _follow(self, flight, future):
        """Sees a chunk through: whatever happens, it is answered."""
        try:
            await self._await(flight, future)
        except Exception as error:
            self._over(flight)
            text = f"the bridge has a defect: {type(error).__name__}: {error}"
            self.events.failed(flight.call, "PB_ERR_INTERNAL", text)

    async def _await(self, flight, future):
        try:
            outcome = await future
        except (asyncio.CancelledError, concurrent.futures.CancelledError) as error:
            if not (flight.is_over or self._is_closing):
                await self._was_cancelled(flight, error)
        except Exception as error:
            if not flight.is_over:
                await self._erred(flight, error)
        else:
            if not flight.is_over:
                await self._returned(flight, outcome)

    def _over(self, flight):
        flight.is_over = True
        self._flights.pop(flight.key, None)
        state = self._calls.get(flight.call.number)
        if state is not None:
            state.flights.discard(flight)

    # ---- chunks back ------------------------------------------------------------------------------------------------

    async def _returned(self, flight, outcome):
        kind, worker, *more = outcome
        if kind == "done":
            self._over(flight)
            self.events.results(flight.call, [(flight.chunk.seq, more[0], 1, worker)])
            self._release_later(flight.future, len(more[0]))
        elif kind == "need":
            await self._provide(flight, worker, more[0])
        elif kind == "error":
            self._over(flight)
            self.events.failed(flight.call, *more)
        # Else "cancelled": whoever cancelled does not wait for it.

    async def _provide(self, flight, worker, wanted):
        """Sends files to a worker that has asked for them, and the chunk again. All chunks that ask share one upload."""
        for sha256 in wanted:
            place = (worker, sha256)
            if place not in self._uploads:
                self._uploads[place] = self._spawn(self._upload(flight.call, worker, sha256))
            trouble = await asyncio.shield(self._uploads[place])
            if flight.is_over:
                return
            if trouble:
                self._uploads.pop(place, None)
                self._over(flight)
                self.events.failed(flight.call, *trouble)
                return
        self._resend(flight, f"worker {worker} does not find files that it was sent")

    async def _upload(self, call, worker, sha256):
        try:
            files = await self._loop.run_in_executor(None, engine.files_for, call, [sha256])
            answers = await self._cluster.run(self._shim.put_files, files, workers=[worker])
        except EngineError as error:
            return error.status, error.text
        except Exception as error:
            return "PB_ERR_IO", f"worker {worker} could not be sent a library: {error}"
        # No answer: it has died meanwhile. The chunk is for another worker then.
        return answers.get(worker)

    def _resend(self, flight, why):
        """The same chunk under another key."""
        flight.resends += 1
        if flight.resends > RESENDS + len(self._cluster.threads):
            self._over(flight)
            self.events.failed(flight.call, "PB_ERR_WORKER_LOST", f"chunk {flight.chunk.seq} was sent {flight.resends} times: {why}")
            return
        self._flights.pop(flight.key, None)
        self._send(flight.call, [flight])

    async def _was_cancelled(self, flight, error):
        """Dask has cancelled a chunk that we had not: with its scheduler, or because its ctx was lost with a worker."""
        reason = getattr(error, "reason", "") or str(error)
        if not self._cluster.is_connected() or "scheduler" in reason:
            self._gone("is gone: the connection to it was lost")
            return
        state = self._calls.get(flight.call.number)
        if state is not None and state.ctx is not None:
            try:
                if state.ctx.status != "finished" or state.scattering is not None:
                    await self._scatter(flight.call, state)
            except Exception as trouble:
                self._over(flight)
                self.events.failed(flight.call, "PB_ERR_WORKER_LOST", f"ctx was lost with its worker, and cannot be sent again: {trouble}")
                return
        if not flight.is_over:
            self._resend(flight, f"Dask cancelled it ({reason})")

    async def _erred(self, flight, error):
        """The task ended with an exception: the shim makes none, so it is Dask's."""
        last = getattr(error, "last_worker", None)
        if last is not None:  # KilledWorker
            self._over(flight)
            attempts = getattr(error, "allowed_failures", 3) + 1
            self.events.lost(flight.call, [(flight.chunk.seq, attempts, last.address, await self._cluster.how(last.address))])
        elif isinstance(error, ImportError) and flight.resends < 3 and await self._cluster.repair_shim():
            self._resend(flight, str(error))
        elif not self._cluster.is_connected():
            self._gone(f"is gone ({error})")
        else:
            self._over(flight)
            text = f"Dask could not run a chunk: {type(error).__name__}: {error}"
            self.events.failed(flight.call, "PB_ERR_TASK_NOT_PORTABLE", text)

    # ---- deaths -----------------------------------------------------------------------------------------------------

    def _on_event(self, event):
        _, message = event
        if not isinstance(message, dict) or message.get("action") != "remove-worker":
            return
        worker = message.get("worker")
        for place in [place for place in self._uploads if place[0] == worker]:
            del self._uploads[place]
        if message.get("expected"):
            return
        keys = [tuple(key) if isinstance(key, (list, tuple)) else key for key in message.get("processing-tasks", ())]
        had = sorted((self._flights[key] for key in keys if key in self._flights), key=lambda flight: flight.order)
        again = sum(key in self._given_up for key in keys)
        ran = had[: max(0, self._cluster.threads.get(worker, 1) - again)]
        for flight in ran:
            self._over(flight)
            self._given_up.append(flight.key)
        if ran:
            self._spawn(self._client.cancel([flight.future for flight in ran]))
            self._spawn(self._tell_lost(worker, ran))

    async def _tell_lost(self, worker, flights):
        how = await self._cluster.how(worker)
        for flight in flights:
            self.events.lost(flight.call, [(flight.chunk.seq, 1, worker, how)])

    # ---- the end of a call ------------------------------------------------------------------------------------------

    def _let_go(self, call):
        flights = list(self._state(call).flights)
        for flight in flights:
            self._over(flight)
        return [flight.future for flight in flights if flight.future is not None]

    async def cancel(self, call):
        futures = self._let_go(call)
        if futures:
            await self._client.cancel(futures)
        running = await self._cluster.run(self._shim.cancel_call, call.number)
        deadline, pause = self._loop.time() + engine.CANCEL_GRACE, 0.005
        while True:
            running = {worker: count for worker, count in running.items() if count}
            if not running or self._loop.time() > deadline:
                return sum(running.values()), sorted(running)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 0.1)
            running = await self._cluster.run(self._shim.running, call.number, workers=list(running))

    async def end(self, call):
        futures = self._let_go(call)
        state = self._calls.pop(call.number)
        if futures:
            self._spawn(self._client.cancel(futures))
        if state.ctx is not None:
            state.ctx.release()
            self._spawn(self._cluster.run(self._shim.drop_call, call.number))

    async def close(self):
        self._is_closing = True
        if self._poll is not None:
            self._poll.cancel()
        futures = [flight.future for flight in self._flights.values() if flight.future is not None]
        self._release()
        calls = [number for number, state in self._calls.items() if state.flights]
        for flight in list(self._flights.values()):
            self._over(flight)
        with contextlib.suppress(Exception):
            if self._cluster.is_connected():
                if futures:
                    await asyncio.wait_for(self._client.cancel(futures), 1)
                for number in calls:
                    await asyncio.wait_for(self._cluster.run(self._shim.cancel_call, number), 1)
        await self._cluster.close()
        for task in self._background:
            task.cancel()
