"""What the bridge asks of an engine: the base class of `dask`, `ray` and `echo`.

All methods are called on the thread of the bridge's event loop, and all callbacks of `Events` are to be called there (from
another thread: `loop.call_soon_threadsafe(events.results, ...)`). For one call the bridge awaits its methods one after the
other: open_call, then submit as often as there are chunks, then perhaps cancel, then end. Only cancel can overtake: it may
come while an open_call or a submit of the same call is being awaited. Methods of different calls may run at the same time.

An engine runs `shim.run_chunk(call.spec, chunk.message, ctx)` once for each chunk on some worker and reports what came of
it; `shim.py` says what that returns. Each chunk that was submitted is answered by exactly one of results, lost, or, for the
whole call, failed; after cancel has returned, by nothing.
"""

from __future__ import annotations

import base64
import collections
import hashlib
import json
import os

# What a session must not wait longer for, where its parameters say nothing.
START_TIMEOUT = 30.0
ENGINE_TIMEOUT = 30.0
CANCEL_GRACE = 5.0
SLOTS_EVERY = 2.0


class EngineError(Exception):
    """What the caller is to be told: the name of a status, and a text that says what was wrong and what to do."""

    def __init__(self, status, text):
        super().__init__(text)
        self.status = status
        self.text = text


#: What an engine says of itself once it has started: the fields of READY.
#: slots: tasks that it runs at the same time. slot_cost: seconds of its own work for one task. least: seconds, the shortest
#: chunk that is sensible. chunk_bytes: the most bytes of a chunk. credit: the most bytes that may be on their way.
Ready = collections.namedtuple("Ready", "engine_version slots slot_cost least chunk_bytes credit")

#: A chunk on its way to a worker: its number in the call, its message (bytes), how many items it has.
Chunk = collections.namedtuple("Chunk", "seq message items")


class File:
    """A shared library that workers need: known by the hash of its bytes."""

    # By path and by what tells whether the file is still the same.
    _known = {}

    def __init__(self, path):
        self.path = path
        self.name = os.path.basename(path)
        try:
            key, self.size = File._key(path)
            if key not in File._known:
                digest = hashlib.sha256()
                with open(path, "rb") as file:
                    for block in iter(lambda: file.read(1 << 20), b""):
                        digest.update(block)
                File._known[key] = digest.hexdigest()
        except OSError as error:
            raise self._unreadable(error) from None
        self.sha256 = File._known[key]

    def _unreadable(self, error):
        return EngineError("PB_ERR_TASK_NOT_PORTABLE", f"cannot read '{self.path}' to send it to the workers: {error.strerror}")

    @staticmethod
    def _key(path):
        about = os.stat(path)
        return (path, about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns), about.st_size

    @staticmethod
    def is_known(path):
        """Whether its hash is known already: finding it may take long otherwise."""
        try:
            return File._key(path)[0] in File._known
        except OSError:
            return True  # it is known to be missing

    def content(self):
        """Its bytes, which are still those of `sha256`."""
        try:
            with open(self.path, "rb") as file:
                content = file.read()
        except OSError as error:
            raise self._unreadable(error) from None
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise EngineError("PB_ERR_TASK_NOT_PORTABLE", f"'{self.path}' has changed since the call began: call again")
        return content

    def described(self):
        return [self.name, self.sha256, self.path]


class Call:
    """One map: what all of its chunks share."""

    def __init__(self, number, retries=0, once_only=False, ctx=None):
        self.number = number
        self.retries = retries
        self.once_only = once_only
        #: Bytes, or None where ctx is inside the messages or there is none. They stay until `end`.
        self.ctx = ctx
        self.is_cancelled = False
        #: The library first, then the task's files.
        self.files = []
        #: For the shim: small, and the same bytes for every chunk, so that a worker reads them once.
        self.spec = b""

    def describe(self, library, version, paths):
        """Looks at the files that workers need."""
        library = File(library)
        # A task that lies in our own library needs no other file.
        others = [file for file in map(File, paths) if file.sha256 != library.sha256]
        self.files = [library, *others]
        about = {"call": self.number, "version": version, "library": library.described()}
        about["files"] = [file.described() for file in others]
        about["has_ctx"] = self.ctx is not None
        self.spec = json.dumps(about, separators=(",", ":")).encode()

    def file(self, sha256):
        """The file that a worker asks for."""
        for file in self.files:
            if file.sha256 == sha256:
                return file
        raise EngineError("PB_ERR_INTERNAL", f"a worker asks for a file {sha256} that the call does not have")


class Events:
    """What an engine reports. `worker` is an address that people can find the worker by."""

    def results(self, call, chunks):
        """Chunks are over: a list of (seq, reply, attempts, worker)."""
        raise NotImplementedError

    def lost(self, call, chunks):
        """Their worker died: a list of (seq, attempts, worker, how); `how` continues "its worker ..."."""
        raise NotImplementedError

    def failed(self, call, status, text):
        """The call cannot go on; nothing more is reported of it."""
        raise NotImplementedError

    def slots(self, count):
        """The engine runs `count` tasks at the same time from now on."""
        raise NotImplementedError

    def fatal(self, status, text):
        """The session is over."""
        raise NotImplementedError

    def log(self, level, text):
        """For people; `level` is "info" or "warning"."""
        raise NotImplementedError


class Engine:
    """An engine. `options` are the parameters of pb_push_backend as texts, `version` is the library's."""

    name = ""
    #: Parameters that it knows, besides those that the library itself takes. Others are an error that names them.
    parameters = frozenset()

    def __init__(self, options, version, events):
        self.options = options
        self.version = version
        self.events = events

    async def start(self, timeout):
        """Connects, within `timeout` seconds; gives a Ready. Raises EngineError."""
        raise NotImplementedError

    async def open_call(self, call):
        """Prepares a call: what all chunks need can be sent ahead. Raises EngineError."""

    async def submit(self, call, chunks):
        """Starts chunks. Does not wait for them. Raises EngineError."""
        raise NotImplementedError

    async def cancel(self, call):
        """Ends a call: no chunk of it starts any more, `pb_cancelled()` is true in those that run. Returns when none runs,
        or after CANCEL_GRACE, with (how many still run, where: a list of workers). The bridge also asks for it where a call
        has failed, be it in its open_call."""
        raise NotImplementedError

    async def end(self, call):
        """The call is over: what was kept for it can go."""

    async def close(self):
        """Ends all, leaves nothing behind. May come at any time, also after a failed start."""

    def number(self, key, default):
        """A parameter that is a positive number of seconds."""
        text = self.options.get(key)
        if text is None:
            return default
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 < value < float("inf"):
            raise EngineError("PB_ERR_INVALID_ARGUMENT", f"parameter '{key}={text}' of backend '{self.name}' is no positive number")
        return value

    def count(self, key, default):
        """A parameter that is a whole number of at least 1."""
        text = self.options.get(key)
        if text is None:
            return default
        # More digits would be no mistake that the engine finds soon.
        if not (text.isascii() and text.isdigit() and len(text) < 7 and int(text) > 0):
            raise EngineError("PB_ERR_INVALID_ARGUMENT", f"parameter '{key}={text}' of backend '{self.name}' is no whole number from 1 to 999999")
        return int(text)


def files_for(call, wanted):
    """For the shim's `put_files`: [(name, sha256, bytes)] of the files that a worker asked for."""
    return [(file.name, file.sha256, file.content()) for file in (call.file(sha256) for sha256 in wanted)]


def fresh_token():
    """A short text that nobody else has."""
    return base64.b32encode(os.urandom(10)).decode().lower()
