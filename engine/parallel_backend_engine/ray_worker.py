"""What a worker process of Ray does with a chunk: it gives it to the shim, and turns Ray's interrupt into the call's flag.

The bridge sends this file and `shim.py` as text inside the one function that all of its tasks run, so a worker needs nothing but Ray.

Ray cancels a running task by pretending a SIGINT, which Python code sees as KeyboardInterrupt, and native code not at all: Python
looks at signals only between two of its own instructions. But the number of the signal is also written to the descriptor of
`signal.set_wakeup_fd`, at once and whatever runs. A thread waits there and sets the flag that `pb_cancelled()` reads. Without polling,
and without another thread between Ray and the chunk.

Whose interrupt is it? Ray interrupts only the task that it means, while that runs on the main thread. The waiting thread may be late:
the main thread, which gets its KeyboardInterrupt before it can go on to another chunk, therefore waits until the byte has been read.
"""

import os
import pickle
import signal
import struct
import threading


class Interrupts:
    """The thread that waits for interrupts of the chunk that runs."""

    def __init__(self, cancel_call):
        self._cancel_call = cancel_call
        self._call = None
        self._seen = threading.Semaphore(0)
        self._read, write = os.pipe()
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        threading.Thread(target=self._wait, name="pb-interrupts", daemon=True).start()

    def _wait(self):
        while os.read(self._read, 64):
            call = self._call
            if call is not None:
                self._cancel_call(call)
            self._seen.release()

    def run(self, call, chunk):
        """Runs a chunk of a call; gives None where it was interrupted."""
        try:
            self._call = call
            return chunk()
        except KeyboardInterrupt:
            self._cancel_call(call)
            self._seen.acquire(timeout=1)
            return None
        finally:
            self._call = None


class Nobody:
    """Where chunks do not run on the main thread there is nothing to be told."""

    def run(self, call, chunk):
        return chunk()


CALL = struct.Struct("<Q")
COUNT = struct.Struct("<I")
WORKER_SIZE = struct.Struct("<H")
# A longer reply travels beside the pickle, so that nobody copies it.
RAW_MOST = 64 << 10
_state = {}


def run_chunk(shim, head, message, ctx=None, files=()):
    """Runs a chunk. `head`: as `head_of` makes it. `files`: [(name, sha256, [reference])] of those that a worker may lack. All
    but the last two are bytes, which cost Ray least.

    Gives the shim's outcome; one that is done and not long as bytes, for `outcome_of`.
    """
    if not _state:
        _prepare(shim)
    calls, spec = _split(head)
    call = calls[0]
    _drop_all_but(shim, calls)
    if ctx is not None:
        _state["calls"].add(call)
    outcome = _state["interrupts"].run(call, lambda: shim.run_chunk(spec, message, ctx))
    if outcome is None:
        return ("cancelled", shim.whereabouts())
    # Files of earlier calls may be all that came: then the caller has to send those that are asked for.
    if outcome[0] == "need" and {sha256 for _, sha256, _ in files}.issuperset(outcome[2]):
        trouble = shim.put_files(_fetch(files, outcome[2]))
        return ("error", outcome[1], *trouble) if trouble else _run_again(shim, head, message, ctx)
    return _packed(outcome) if outcome[0] == "done" else outcome


def _run_again(shim, head, message, ctx):
    """With files that are there now."""
    outcome = run_chunk(shim, head, message, ctx)
    if outcome[0] != "need":
        return outcome
    return ("error", outcome[1], "PB_ERR_IO", f"worker {outcome[1]} does not find files that it has stored")


def _prepare(shim):
    # A task holds one CPU of the cluster: that is what maps and libraries inside it have.
    shim.set_share(os.cpu_count() or 1)
    is_main = threading.current_thread() is threading.main_thread()
    _state["interrupts"] = Interrupts(shim.cancel_call) if is_main else Nobody()
    _state["calls"] = set()


def head_of(call, live, spec):
    """What a task begins with: the numbers of its call and of the others that are not over, and the call's spec."""
    others = [CALL.pack(other) for other in live if other != call]
    return b"".join((COUNT.pack(1 + len(others)), CALL.pack(call), *others, spec))


def _split(head):
    (count,) = COUNT.unpack_from(head)
    end = COUNT.size + count * CALL.size
    return [call for (call,) in CALL.iter_unpack(head[COUNT.size : end])], head[end:]


def _drop_all_but(shim, live):
    """Calls that are over need their ctx here no more."""
    for call in _state["calls"].difference(live):
        shim.drop_call(call)
        _state["calls"].discard(call)


def _fetch(files, wanted):
    import ray

    return [(name, sha256, ray.get(box[0])) for name, sha256, box in files if sha256 in wanted]


def _packed(outcome):
    kind, worker, reply = outcome
    if len(reply) > RAW_MOST:
        return (kind, worker, pickle.PickleBuffer(reply))
    name = worker.encode()
    return b"".join((WORKER_SIZE.pack(len(name)), name, reply))


def outcome_of(result):
    """What `run_chunk` gave, as the shim says it."""
    if not isinstance(result, bytes):
        return result
    begin = WORKER_SIZE.size
    end = begin + WORKER_SIZE.unpack_from(result)[0]
    return ("done", result[begin:end].decode(), result[end:])
