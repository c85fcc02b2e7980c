#!/usr/bin/env python3
"""An interpreter for the bridge (parameter python=) that makes what PB_FAKE says go wrong, with the engine echo in it.

It does what the loader does that the library passes by -c, and then changes the bridge's modules.
"""

import asyncio
import importlib.abc
import importlib.util
import json
import os
import random
import signal
import socket
import sys
import time

MODE = os.environ.get("PB_FAKE", "")


def take(sock, size):
    data = bytearray()
    while len(data) < size:
        data += sock.recv(size - len(data)) or sys.exit("no modules")
    return data


class Sources(importlib.abc.InspectLoader, importlib.abc.MetaPathFinder):
    def __init__(self, sources):
        self.sources = sources

    def find_spec(self, name, path=None, target=None):
        return importlib.util.spec_from_loader(name, self) if name in self.sources else None

    def is_package(self, name):
        return any(other.startswith(name + ".") for other in self.sources)

    def get_source(self, name):
        return self.sources[name]


fd = int(sys.argv[-1])
if MODE == "never_reads":
    time.sleep(1000)
sock = socket.socket(fileno=fd)
sys.meta_path.insert(0, Sources(json.loads(take(sock, int.from_bytes(take(sock, 8), "little")))))
sock.detach()

from parallel_backend_engine import bridge, echo_engine, engine, frames  # noqa: E402

Channel, Echo = frames.Channel, echo_engine.EchoEngine
real_send, real_start, real_submit, real_cancel = Channel.send, Echo.start, Echo.submit, Echo.cancel


def raw(channel, data):
    """Bytes past all rules."""
    channel._out.append([memoryview(data), None])
    channel._writable()


def results_as(change):
    """Every RESULTS frame goes through `change(send, meta, body)`."""

    def send(self, kind, call=0, meta=None, body=b""):
        if kind == frames.RESULTS:
            change(lambda *frame: real_send(self, *frame), call, meta, bytes(body))
        else:
            real_send(self, kind, call, meta, body)

    Channel.send = send


def on_submit(what):
    async def submit(self, call, chunks):
        await what(self, call, chunks)

    Echo.submit = submit


def twice(send, call, meta, body):
    send(frames.RESULTS, call, meta, body)
    send(frames.RESULTS, call, meta, body)


def strange(send, call, meta, body):
    for chunk in meta["chunks"]:
        send(frames.RESULTS, call, {"chunks": [[chunk[0] + 1_000_000, 3, 1, "w"]]}, b"abc")
    send(frames.RESULTS, call + 1, meta, body)
    send(frames.CANCELLED, call, {"running": 3, "workers": ["nobody"]})
    send(frames.RESULTS, call, meta, body)


held = []


def reordered(send, call, meta, body):
    """Each chunk in a frame of its own, in any order."""
    at = 0
    for chunk in meta["chunks"]:
        held.append((call, {"chunks": [chunk]}, body[at : at + chunk[1]]))
        at += chunk[1]

    def flush():
        random.shuffle(held)
        while held:
            send(frames.RESULTS, *held.pop())

    asyncio.get_running_loop().call_later(0.005, flush)


def garbled(send, call, meta, body):
    send(frames.RESULTS, call, meta, bytes(byte ^ 0xFF for byte in body))


def broken(data):
    async def submit(self, call, chunks):
        raw(self.events._channel, data)

    return submit


async def nothing(self, call, chunks):
    pass


async def die(self, call, chunks):
    print("the last line, with", os.environ.get("PB_TEST_TOKEN"), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


async def leave(self, call, chunks):
    os._exit(7)


async def freeze(self, call, chunks):
    os.kill(os.getpid(), signal.SIGSTOP)


async def fail(self, call, chunks):
    raise engine.EngineError("PB_ERR_TASK_NOT_PORTABLE", "the worker lacks libmissing.so")


async def fatal(self, call, chunks):
    print("scheduler says goodbye", file=sys.stderr, flush=True)
    self.events.fatal("PB_ERR_WORKER_LOST", "the scheduler at tcp://nowhere:1 is gone")


async def always_lost(self, call, chunks):
    self.events.lost(call, [(chunk.seq, 1, "tcp://w:1", "was killed by signal 9") for chunk in chunks])


seen = set()


async def lost_once(self, call, chunks):
    """The first chunk that comes is lost, as a whole; what is sent again runs."""
    if call.number not in seen:
        seen.add(call.number)
        self.events.lost(call, [(chunks[0].seq, 1, "tcp://w:1", "was killed by signal 9")])
        chunks = chunks[1:]
    await real_submit(self, call, chunks)


async def no_slots(self, call, chunks):
    self.events.slots(0)


async def more_slots(self, call, chunks):
    self.events.slots(8)
    await real_submit(self, call, chunks)


on_their_way = {}
most = {"chunks": 0, "bytes": 0}


async def counted(self, call, chunks):
    """Tells the most chunks and bytes that were on their way, as the reason for ending the session when the last one came."""
    for chunk in chunks:
        on_their_way[chunk.seq] = len(chunk.message)
    most["chunks"] = max(most["chunks"], len(on_their_way))
    most["bytes"] = max(most["bytes"], sum(on_their_way.values()))
    await real_submit(self, call, chunks)


def count_results(send, call, meta, body):
    for chunk in meta["chunks"]:
        on_their_way.pop(chunk[0], None)
    limits = [int(number) for number in os.environ["PB_FAKE_LIMITS"].split()]
    if most["chunks"] > limits[0] or most["bytes"] > limits[1]:
        send(frames.FATAL, 0, {"status": "PB_ERR_INTERNAL", "text": f"{most} were on their way"})
    send(frames.RESULTS, call, meta, body)


def ready_with(**changes):
    async def start(self, timeout):
        return (await real_start(self, timeout))._replace(**changes)

    Echo.start = start


async def never_ready(self, timeout):
    await asyncio.sleep(1000)


async def refuse(self, timeout):
    raise engine.EngineError("PB_ERR_BACKEND_UNAVAILABLE", "no Dask here: pip install distributed")


async def deaf(self, call):
    await asyncio.sleep(1000)


HEAD = frames.HEADER.pack
if MODE == "twice":
    results_as(twice)
elif MODE == "strange":
    results_as(strange)
elif MODE == "reordered":
    results_as(reordered)
elif MODE == "garbled":
    results_as(garbled)
elif MODE == "garbage":
    on_submit(broken(b"Traceback (most recent call last):\n"))
elif MODE == "unknown":
    on_submit(broken(HEAD(b"PBbr", 1, 99, 0, 0, 0, 0)))
elif MODE == "oversized":
    on_submit(broken(HEAD(b"PBbr", 1, frames.RESULTS, 0, 2, 0, 1 << 40)))
elif MODE == "other_version":
    on_submit(broken(HEAD(b"PBbr", 7, frames.RESULTS, 0, 2, 0, 0)))
elif MODE == "truncated":

    async def truncate(self, call, chunks):
        raw(self.events._channel, HEAD(b"PBbr", 1, frames.RESULTS, call.number, 100, 0, 100) + b"{")
        os._exit(0)

    on_submit(truncate)
elif MODE == "never_ready":
    Echo.start = never_ready
elif MODE == "refuses":
    Echo.start = refuse
elif MODE == "deaf":
    on_submit(nothing)
    Echo.cancel = deaf
elif MODE.startswith("counted"):
    on_submit(counted)
    results_as(count_results)
    ready_with(credit=20_000, chunk_bytes=8_000, least=0.05)
else:
    actions = {
        "silent": nothing,
        "dies": die,
        "leaves": leave,
        "freezes": freeze,
        "fails": fail,
        "fatal": fatal,
        "always_lost": always_lost,
        "lost_once": lost_once,
        "no_slots": no_slots,
        "more_slots": more_slots,
    }
    if MODE in actions:
        on_submit(actions[MODE])
    elif MODE:
        sys.exit(f"PB_FAKE={MODE} is none of mine")

sys.exit(bridge.main(fd))
