"""The engine `echo`: runs chunks in the bridge itself, on a few threads. It is how all the rest is tested without an engine.

`threads=N` says how many. `library=no` leaves libparallel_backend out: a reply is then the chunk's message.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os

from parallel_backend_engine import engine, shim


class EchoEngine(engine.Engine):
    name = "echo"
    parameters = frozenset(("threads", "library"))

    async def start(self, timeout):
        self._loop = asyncio.get_running_loop()
        count = self.count("threads", os.cpu_count() or 1)
        self._pool = concurrent.futures.ThreadPoolExecutor(count, thread_name_prefix="pb-echo")
        self._has_library = self.options.get("library", "yes") != "no"
        self._waiting = {}
        return engine.Ready("", slots=count, slot_cost=1e-4, least=1e-3, chunk_bytes=64 << 20, credit=256 << 20)

    async def submit(self, call, chunks):
        for chunk in chunks:
            future = self._pool.submit(self._run, call, chunk)
            self._waiting.setdefault(call.number, set()).add(future)
            future.add_done_callback(lambda future, call=call, chunk=chunk: self._tell(future, call, chunk))

    def _run(self, call, chunk):
        """Whatever happens, the chunk is answered."""
        if not self._has_library:
            return ("done", shim.whereabouts(), bytes(chunk.message))
        outcome = shim.run_chunk(call.spec, chunk.message, call.ctx)
        if outcome[0] != "need":
            return outcome
        try:
            trouble = shim.put_files(engine.files_for(call, outcome[2]))
        except engine.EngineError as error:
            trouble = (error.status, error.text)
        outcome = outcome if trouble else shim.run_chunk(call.spec, chunk.message, call.ctx)
        if outcome[0] == "need":
            outcome = ("error", outcome[1], *(trouble or ("PB_ERR_IO", "files that were stored for it are not there")))
        return outcome

    def _tell(self, future, call, chunk):
        if not future.cancelled():
            self._loop.call_soon_threadsafe(self._settle, future, call, chunk)

    def _settle(self, future, call, chunk):
        self._waiting.get(call.number, set()).discard(future)
        if call.is_cancelled:
            return
        kind, worker, *more = future.result()
        if kind == "done":
            self.events.results(call, [(chunk.seq, more[0], 1, worker)])
        elif kind == "error":
            self.events.failed(call, *more)

    async def cancel(self, call):
        shim.cancel_call(call.number)
        left = {future for future in self._waiting.get(call.number, ()) if not future.cancel()}
        if left:
            _, left = await asyncio.wait([asyncio.wrap_future(future) for future in left], timeout=engine.CANCEL_GRACE)
        return len(left), [shim.whereabouts()] if left else []

    async def end(self, call):
        self._waiting.pop(call.number, None)
        shim.drop_call(call.number)

    async def close(self):
        if hasattr(self, "_pool"):
            self._pool.shutdown(wait=False, cancel_futures=True)
