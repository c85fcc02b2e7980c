"""The bridge: frames from the library in, calls of an engine out, and what comes of them back.

One asyncio loop does it all. Every call has a lane, a task that does what its frames ask for one after the other, so that
an engine sees a call's ctx before its first chunk; calls do not wait for each other. CANCEL overtakes.

Results are gathered until the loop comes round, and sent up to 64 in a frame. The library keeps within its credit, so
nothing here has to stop reading.

The end of the stream is the end of the user's process. Then, as after SHUTDOWN and FATAL, the engine is closed, for which
it has a few seconds, and the process exits.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import importlib
import os
import platform
import signal
import socket
import sys
import traceback

from parallel_backend_engine import engine as engines
from parallel_backend_engine import frames

ENGINES = {"dask": "DaskEngine", "ray": "RayEngine", "echo": "EchoEngine"}
RESULTS_A_FRAME = 64
CLOSE_PATIENCE = 10.0
SUBMIT_FIELDS = 3
# Characters of a text for people.
TEXT_MOST = 1 << 16


class Lane:
    """A call, and what is still to be done for it."""

    def __init__(self, call, bridge):
        self.call = call
        # Has failed: nothing more is reported. Has ended: nothing more is taken.
        self.is_over = self.is_ended = False
        self._bridge = bridge
        self._todo = collections.deque()
        self._worker = self._current = None

    def do(self, action, *arguments):
        """Does it when all before it is done."""
        self._todo.append((action, arguments))
        if self._worker is None:
            self._worker = asyncio.ensure_future(self._work())

    def cancel(self, action):
        """Gives up what is being done and was to be done, and does that instead."""
        self.call.is_cancelled = True
        self._todo.clear()
        if self._current is not None:
            self._current.cancel()
        self.do(action)

    async def _work(self):
        while self._todo:
            action, arguments = self._todo.popleft()
            # A task of its own, so that it can be given up alone.
            self._current = asyncio.ensure_future(action(self.call, *arguments))
            try:
                await self._current
            except engines.EngineError as error:
                self._bridge.failed(self.call, error.status, error.text)
            except asyncio.CancelledError:
                if not self._current.cancelled():
                    raise
            except Exception as error:
                self._bridge.failed(self.call, "PB_ERR_INTERNAL", _defect(error))
            self._current = None
        self._worker = None


def _defect(error):
    last = traceback.extract_tb(error.__traceback__)[-1:]
    where = "".join(f" ({os.path.basename(frame.filename)}:{frame.lineno})" for frame in last)
    return f"the bridge has a defect: {type(error).__name__}: {error}{where}"


class Bridge(engines.Events):
    """One session."""

    def __init__(self, sock, loop):
        self._loop = loop
        self._engine = None
        self._starting = None
        self._is_started = False
        self._lanes = {}
        self._results = collections.defaultdict(list)
        self._over = loop.create_future()
        self._channel = frames.Channel(sock, loop, self._on_frame, self._on_end)

    async def run(self):
        """Serves until the session is over; gives the exit code."""
        code = await self._over
        await self._drain()
        if self._starting is not None:
            self._starting.cancel()
        if self._engine is not None:
            with contextlib.suppress(asyncio.TimeoutError, asyncio.CancelledError):
                await asyncio.wait_for(self._engine.close(), CLOSE_PATIENCE)
        # Last: once the stream has ended, the library gives the process no more time.
        self._channel.close()
        return code

    async def _drain(self):
        for _ in range(200):
            if self._channel.is_drained():
                return
            await asyncio.sleep(0.01)

    def _finish(self, code):
        if not self._over.done():
            self._over.set_result(code)

    # ---- frames in --------------------------------------------------------------------------------------------------

    def _on_end(self, error):
        if error is not None:
            self.fatal("PB_ERR_INTERNAL", f"the bridge cannot read what the library sends: {error}")
        self._finish(0)

    def _on_frame(self, frame):
        if self._over.done():
            return
        try:
            self._take(frame)
        except frames.ProtocolError as error:
            self.fatal("PB_ERR_INTERNAL", f"the bridge got a frame that it does not understand: {error}")
        except engines.EngineError as error:
            self.fatal(error.status, error.text)
        except Exception as error:
            self.fatal("PB_ERR_INTERNAL", _defect(error))

    def _take(self, frame):
        if frame.kind == frames.SHUTDOWN:
            self._finish(0)
        elif frame.kind == frames.HELLO:
            self._hello(frame.meta)
        elif not self._is_started:
            raise frames.ProtocolError(f"type {frame.kind} before READY")
        elif frame.kind == frames.CALL:
            self._open(frame)
        elif frame.call in self._lanes:
            self._take_for(self._lanes[frame.call], frame)
        # Else a call that has ended: what was said to it while its end was on the way means nothing any more.

    def _take_for(self, lane, frame):
        if lane.is_ended:
            return
        if frame.kind == frames.SUBMIT:
            chunks = _chunks(frame)
            if not (lane.is_over or lane.call.is_cancelled):
                lane.do(self._engine.submit, chunks)
        elif frame.kind == frames.CANCEL:
            if not lane.call.is_cancelled:
                lane.cancel(self._cancel)
        elif frame.kind == frames.END:
            lane.is_over = lane.is_ended = True
            lane.do(self._forget)

    def _hello(self, meta):
        if self._starting is not None:
            raise frames.ProtocolError("a second HELLO")
        name, options = _text(meta, "engine"), meta.get("options", {})
        if not isinstance(options, dict) or not all(isinstance(value, str) for value in options.values()):
            raise frames.ProtocolError("options that are no texts")
        if name not in ENGINES:
            raise engines.EngineError("PB_ERR_UNKNOWN_BACKEND", f"the bridge knows no engine '{name}'")
        patience = _number(meta, "start_timeout", engines.START_TIMEOUT)
        self._version, self._library = _text(meta, "version"), _text(meta, "library")
        self._starting = asyncio.ensure_future(self._start(name, options, patience))

    async def _start(self, name, options, patience):
        try:
            module = importlib.import_module(f"parallel_backend_engine.{name}_engine")
            kind = getattr(module, ENGINES[name])
            _check_parameters(kind, options)
            self._engine = kind(options, self._version, self)
            ready = await asyncio.wait_for(self._engine.start(patience), patience + 5)
        except engines.EngineError as error:
            self.fatal(error.status, error.text)
        except asyncio.TimeoutError:
            self.fatal("PB_ERR_TIMEOUT", f"engine '{name}' did not start within {patience:g} s")
        except Exception as error:
            self.fatal("PB_ERR_INTERNAL", _defect(error))
        else:
            self._is_started = True
            meta = {"engine": name, "python": platform.python_version(), **ready._asdict()}
            self._channel.send(frames.READY, 0, meta)

    def _open(self, frame):
        number, meta = frame.call, frame.meta
        if number == 0 or number in self._lanes:
            raise frames.ProtocolError(f"call {number} twice")
        paths = meta.get("files", [])
        if not isinstance(paths, list):
            raise frames.ProtocolError("files that are no list")
        ctx_size = int(_number(meta, "ctx_size", 0))
        if ctx_size != len(frame.body):
            raise frames.ProtocolError(f"a ctx of {ctx_size} bytes with a body of {len(frame.body)}")
        paths = [_text(entry, "path") for entry in paths]
        call = engines.Call(number, int(_number(meta, "retries", 0)), bool(meta.get("once_only")))
        call.ctx = frame.body if ctx_size else None
        self._lanes[number] = Lane(call, self)
        self._lanes[number].do(self._prepare, paths)

    async def _prepare(self, call, paths):
        if all(map(engines.File.is_known, [self._library, *paths])):
            call.describe(self._library, self._version, paths)
        else:  # on another thread: files may be long
            await self._loop.run_in_executor(None, call.describe, self._library, self._version, paths)
        await self._engine.open_call(call)

    async def _cancel(self, call):
        count, workers = 0, []
        try:
            count, workers = await self._engine.cancel(call)
        finally:
            self._flush()
            self._channel.send(frames.CANCELLED, call.number, {"running": count, "workers": workers})

    async def _forget(self, call):
        self._lanes.pop(call.number, None)
        await self._engine.end(call)

    # ---- frames out: engine.Events --------------------------------------------------------------------------------------

    def _is_known(self, call):
        lane = self._lanes.get(call.number)
        return lane is not None and not lane.is_over

    def results(self, call, chunks):
        if not self._is_known(call):
            return
        if not self._results:
            self._loop.call_soon(self._flush)
        self._results[call.number].extend(chunks)

    def _flush(self):
        """Sends what was gathered. Before any frame that ends a call, so that nothing overtakes its results."""
        gathered, self._results = self._results, collections.defaultdict(list)
        for number, chunks in gathered.items():
            for group in _groups(chunks):
                self._send_results(number, group)

    def _send_results(self, number, group):
        if number not in self._lanes or self._lanes[number].is_over:
            return
        meta = [[seq, len(reply), attempts, worker] for seq, reply, attempts, worker in group]
        size = sum(len(chunk[1]) for chunk in group)
        try:
            body = group[0][1] if len(group) == 1 else b"".join(chunk[1] for chunk in group)
            self._channel.send(frames.RESULTS, number, {"chunks": meta}, body)
        except (frames.ProtocolError, MemoryError, OSError) as error:
            text = f"results of {size} bytes, in {len(group)} chunks, cannot be handed over: {error or 'no memory'}"
            self._fail(self._lanes[number], "PB_ERR_OUT_OF_MEMORY", text)

    def lost(self, call, chunks):
        if self._is_known(call):
            self._flush()
            self._channel.send(frames.LOST, call.number, {"chunks": [list(chunk) for chunk in chunks]})

    def failed(self, call, status, text):
        if self._is_known(call):
            self._flush()
            self._fail(self._lanes[call.number], status, text)

    def _fail(self, lane, status, text):
        lane.is_over = True
        self._channel.send(frames.FAILED, lane.call.number, {"status": status, "text": text[:TEXT_MOST]})
        if not lane.call.is_cancelled:
            lane.cancel(self._engine.cancel)

    def slots(self, count):
        if self._is_started:
            self._channel.send(frames.SLOTS, 0, {"slots": count})

    def fatal(self, status, text):
        if not self._over.done():
            self._flush()
            self._channel.send(frames.FATAL, 0, {"status": status, "text": text[:TEXT_MOST]})
            self._finish(1)

    def log(self, level, text):
        self._channel.send(frames.LOG, 0, {"level": level, "text": text[:TEXT_MOST]})


# ---- what frames say ------------------------------------------------------------------------------------------------------


def _text(meta, key):
    value = meta.get(key) if isinstance(meta, dict) else None
    if not isinstance(value, str):
        raise frames.ProtocolError(f"'{key}' is missing, or no text")
    return value


def _number(meta, key, default):
    value = meta.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1 << 62:
        raise frames.ProtocolError(f"'{key}' is no number")
    return value


def _chunks(frame):
    """The chunks of a SUBMIT."""
    described, body = frame.meta.get("chunks"), memoryview(frame.body)
    if not isinstance(described, list):
        raise frames.ProtocolError("a SUBMIT without chunks")
    chunks, at = [], 0
    for fields in described:
        if not isinstance(fields, list) or len(fields) != SUBMIT_FIELDS or not all(type(n) is int and n >= 0 for n in fields):
            raise frames.ProtocolError("a chunk is [seq, size, items]")
        seq, size, items = fields
        chunks.append(engines.Chunk(seq, bytes(body[at : at + size]), items))
        at += size
    if at != len(body):
        raise frames.ProtocolError(f"chunks of {at} bytes with a body of {len(body)}")
    return chunks


def _check_parameters(kind, options):
    unknown = sorted(set(options) - kind.parameters)
    if unknown:
        known = ", ".join(sorted(kind.parameters))
        text = f"backend '{kind.name}' has no parameter '{unknown[0]}'; it has: {known}"
        raise engines.EngineError("PB_ERR_INVALID_ARGUMENT", text)


def _groups(chunks):
    """Cuts a list of results so that each part fits a frame."""
    group, size = [], 0
    for chunk in chunks:
        if group and (len(group) == RESULTS_A_FRAME or size + len(chunk[1]) > frames.BODY_MOST):
            yield group
            group, size = [], 0
        group.append(chunk)
        size += len(chunk[1])
    if group:
        yield group


# ---- the process ------------------------------------------------------------------------------------------------------------


async def _serve(sock):
    loop = asyncio.get_running_loop()
    bridge = Bridge(sock, loop)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, bridge._finish, 128 + number)
    return await bridge.run()


def main(fd):
    """Serves the library at the other end of the socket `fd`. Gives the process's exit code."""
    sock = socket.socket(fileno=fd)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    code = loop.run_until_complete(_serve(sock))
    # No waiting for what an engine has left: its tasks here, and threads that are still at work.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
