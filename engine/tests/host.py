"""The library's end of the socketpair, as a test drives it: a bridge of its own process, and frames in and out."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from parallel_backend_engine import frames

PACKAGE = Path(__file__).resolve().parent.parent


class Host:
    """Starts a bridge. Use it in a `with`; all waits end after `patience` seconds with an AssertionError."""

    def __init__(self, patience=60, python=sys.executable, environment=None):
        self.patience = patience
        self.sock, theirs = socket.socketpair()
        self.log = tempfile.TemporaryFile()
        environment = {**os.environ, "PYTHONPATH": str(PACKAGE), "PYTHONDONTWRITEBYTECODE": "1", **(environment or {})}
        command = [python, "-m", "parallel_backend_engine", str(theirs.fileno())]
        self.process = subprocess.Popen(
            command, pass_fds=[theirs.fileno()], env=environment, stdin=subprocess.DEVNULL, stdout=self.log,
            stderr=subprocess.STDOUT, start_new_session=True,
        )
        theirs.close()
        self._decoder = frames.Decoder(frames.FROM_BRIDGE)
        self._frames = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()
        try:
            self.process.wait(self.patience)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self._decoder.close()
            self.log.close()

    def printed(self):
        """What the bridge wrote to its standard output and error."""
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def send(self, kind, call=0, meta=None, body=b""):
        head, apart = frames.encode(kind, call, meta, body)
        if not apart:
            self.sock.sendall(head + body)
            return
        file = frames.attachment(body)
        socket.send_fds(self.sock, [head], [file])
        os.close(file)

    def receive(self):
        """The next frame; None at the end of the stream."""
        while not self._frames:
            self.sock.settimeout(self.patience)
            try:
                data, files, _, _ = socket.recv_fds(self.sock, 1 << 18, 16)
            except ConnectionResetError:
                return None
            except socket.timeout:
                raise AssertionError(f"no frame within {self.patience} s; the bridge wrote:\n{self.printed()}") from None
            if not data:
                return None
            self._frames += self._decoder.feed(data, files)
        return self._frames.pop(0)

    def expect(self, *kinds):
        """The next frame that is no LOG or SLOTS, which must be of these types."""
        while True:
            frame = self.receive()
            if frame is None:
                raise AssertionError(f"the bridge has ended; it wrote:\n{self.printed()}")
            if frame.kind in kinds:
                return frame
            if frame.kind not in (frames.LOG, frames.SLOTS):
                raise AssertionError(f"a frame {frame.kind} {json.dumps(frame.meta)} instead of {kinds}\n{self.printed()}")

    def hello(self, engine, options=None, library=__file__, version="0.1.0", start_timeout=30):
        """Says HELLO; gives what comes: READY, or FATAL."""
        meta = {"engine": engine, "version": version, "library": library, "options": options or {}}
        self.send(frames.HELLO, 0, {**meta, "start_timeout": start_timeout})
        return self.expect(frames.READY, frames.FATAL)

    def call(self, number=1, files=(), ctx=b"", retries=0):
        meta = {"files": [{"path": path} for path in files], "ctx_size": len(ctx), "retries": retries, "once_only": False}
        self.send(frames.CALL, number, meta, ctx)

    def submit(self, number, messages, first=0):
        chunks = [[first + i, len(message), 1] for i, message in enumerate(messages)]
        self.send(frames.SUBMIT, number, {"chunks": chunks}, b"".join(messages))

    def results(self, number, count):
        """Waits for so many results of a call: {seq: reply}."""
        found = {}
        while len(found) < count:
            frame = self.expect(frames.RESULTS)
            assert frame.call == number, frame
            at = 0
            for seq, size, attempts, worker in frame.meta["chunks"]:
                assert seq not in found and attempts >= 1 and worker, frame.meta
                found[seq] = bytes(frame.body[at : at + size])
                at += size
            assert at == len(frame.body)
        return found

    def end_of_process(self):
        """The bridge's exit code."""
        deadline = time.monotonic() + self.patience
        while self.receive() is not None:
            assert time.monotonic() < deadline
        return self.process.wait(self.patience)
