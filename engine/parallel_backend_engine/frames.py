"""The frames between the library and its bridge, as docs/bridge.md lays them down.

The decoder trusts nothing: every length is compared with its limit before a byte of it is awaited, every descriptor with
what the header says. Any bytes at all are either frames or a ProtocolError.

One thread, that of the event loop, reads and writes. Descriptors arrive with the first byte of the frame that they belong
to, and the kernel keeps both in order: so a queue of descriptors beside the buffer of bytes is enough to match them.
"""

from __future__ import annotations

import collections
import errno
import fcntl
import json
import mmap
import os
import socket
import stat
import struct

MAGIC = b"PBbr"
VERSION = 1
HEADER = struct.Struct("<4sHHQIIQ")
META_MOST = 1 << 20
BODY_MOST = 1 << 30
# A longer body travels in a memfd.
INLINE_MOST = 1 << 20
# More descriptors than this wait for no frame.
WAITING_MOST = 64

HELLO, CALL, SUBMIT, CANCEL, END, SHUTDOWN = 1, 2, 3, 4, 5, 6
READY, FATAL, RESULTS, LOST, FAILED, SLOTS, CANCELLED, LOG = 16, 17, 18, 19, 20, 21, 22, 23
FROM_LIBRARY = frozenset((HELLO, CALL, SUBMIT, CANCEL, END, SHUTDOWN))
FROM_BRIDGE = frozenset((READY, FATAL, RESULTS, LOST, FAILED, SLOTS, CANCELLED, LOG))


class ProtocolError(Exception):
    """The other side sent what is no frame; the text says what it was."""


Frame = collections.namedtuple("Frame", "kind call meta body")


def encode(kind, call=0, meta=None, body=b""):
    """The bytes before the body, and whether the body is to go in a memfd."""
    text = json.dumps(meta if meta is not None else {}, separators=(",", ":")).encode()
    if len(text) > META_MOST:
        raise ProtocolError(f"a frame of type {kind} has {len(text)} bytes of meta; at most {META_MOST} fit")
    if len(body) > BODY_MOST:
        raise ProtocolError(f"a frame of type {kind} has a body of {len(body)} bytes; at most {BODY_MOST} fit")
    apart = len(body) > INLINE_MOST
    inline = 0 if apart else len(body)
    return HEADER.pack(MAGIC, VERSION, kind, call, len(text), int(apart), inline) + text, apart


class Decoder:
    """Cuts a stream of bytes, with the descriptors that came along, into frames of the types in `kinds`."""

    def __init__(self, kinds=FROM_LIBRARY):
        self._kinds = kinds
        self._bytes = bytearray()
        self._files = collections.deque()

    def feed(self, data, files=()):
        """Takes what has arrived; gives the frames that are whole now."""
        self._bytes += data
        self._files.extend(files)
        frames = []
        while True:
            frame = self._next()
            if frame is None:
                break
            frames.append(frame)
        if len(self._files) > WAITING_MOST:
            raise ProtocolError("descriptors arrive that no frame has announced")
        return frames

    def in_the_middle(self):
        """Whether the stream would end inside a frame."""
        return bool(self._bytes)

    def close(self):
        """Closes the descriptors that no frame has taken."""
        while self._files:
            os.close(self._files.popleft())

    def _next(self):
        if len(self._bytes) < HEADER.size:
            # What cannot become a header is told from its first bytes.
            if not MAGIC.startswith(self._bytes[:4]):
                raise ProtocolError(f"a frame begins with {bytes(self._bytes[:4])!r}")
            return None
        magic, version, kind, call, meta_size, attached, body_size = HEADER.unpack_from(self._bytes)
        self._check(magic, version, kind, meta_size, attached, body_size)
        end = HEADER.size + meta_size + body_size
        if len(self._bytes) < end:
            return None
        view = memoryview(self._bytes)
        meta_bytes = bytes(view[HEADER.size : HEADER.size + meta_size])
        body = bytes(view[HEADER.size + meta_size : end])
        view.release()
        del self._bytes[:end]
        meta = _meta(kind, meta_bytes)
        if attached:
            if not self._files:
                raise ProtocolError(f"a frame of type {kind} announces a descriptor that did not come")
            body = read_attachment(self._files.popleft())
        return Frame(kind, call, meta, body)

    def _check(self, magic, version, kind, meta_size, attached, body_size):
        if magic != MAGIC:
            raise ProtocolError(f"a frame begins with {magic!r}")
        if version != VERSION:
            raise ProtocolError(f"a frame has version {version} of the protocol, this side has {VERSION}")
        if kind not in self._kinds:
            raise ProtocolError(f"there is no frame of type {kind}")
        if meta_size > META_MOST:
            raise ProtocolError(f"a frame of type {kind} announces {meta_size} bytes of meta; at most {META_MOST} fit")
        if body_size > BODY_MOST:
            raise ProtocolError(f"a frame of type {kind} announces {body_size} bytes of body; at most {BODY_MOST} fit")
        if attached > 1 or (attached and body_size):
            raise ProtocolError(f"a frame of type {kind} has {attached} descriptors and {body_size} bytes of body")


def _meta(kind, text):
    if not text:
        return {}
    try:
        meta = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"the meta of a frame of type {kind} is no JSON: {error}") from None
    if not isinstance(meta, dict):
        raise ProtocolError(f"the meta of a frame of type {kind} is no object")
    return meta


def read_attachment(file):
    """The content of a body that came as a descriptor, which is closed. Mapped where nobody can shorten it, else read."""
    try:
        about = os.fstat(file)
        if not stat.S_ISREG(about.st_mode):
            raise ProtocolError("a body came as a descriptor that is no file")
        if about.st_size > BODY_MOST:
            raise ProtocolError(f"a body came as a file of {about.st_size} bytes; at most {BODY_MOST} fit")
        if about.st_size == 0:
            return b""
        if _is_sealed(file):
            return memoryview(mmap.mmap(file, about.st_size, access=mmap.ACCESS_READ))
        return _read(file, about.st_size)
    except OSError as error:
        raise ProtocolError(f"a body came as a descriptor that cannot be read: {error}") from None
    finally:
        os.close(file)


def _is_sealed(file):
    get, shrink = getattr(fcntl, "F_GET_SEALS", 1034), getattr(fcntl, "F_SEAL_SHRINK", 2)
    try:
        return bool(fcntl.fcntl(file, get) & shrink)
    except OSError:
        return False


def _read(file, size):
    content = bytearray(size)
    view, done = memoryview(content), 0
    while done < size:
        count = os.preadv(file, [view[done:]], done)
        if count == 0:
            raise ProtocolError(f"a body of {size} bytes came as a file that ends at {done}")
        done += count
    return content


def attachment(body):
    """A sealed memfd that holds `body`, to be closed by the caller."""
    file = os.memfd_create("pb-body", getattr(os, "MFD_CLOEXEC", 1) | getattr(os, "MFD_ALLOW_SEALING", 2))
    try:
        view, done = memoryview(body), 0
        while done < len(view):
            done += os.write(file, view[done:])
        # F_ADD_SEALS: F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE
        fcntl.fcntl(file, getattr(fcntl, "F_ADD_SEALS", 1033), 2 | 4 | 8)
    except BaseException:
        os.close(file)
        raise
    return file


class Channel:
    """Frames over one end of a socketpair, in an asyncio event loop.

    `on_frame(frame)` is called for each that arrives; `on_end(error)` once, when nothing more can be read: with None where
    the other side is gone, between two frames. What is sent after an error still goes out. `send` never waits: what the
    socket does not take now is kept, and written when it does.
    """

    def __init__(self, sock, loop, on_frame, on_end, kinds=FROM_LIBRARY):
        sock.setblocking(False)
        self._sock, self._loop = sock, loop
        self._on_frame, self._on_end = on_frame, on_end
        self._decoder = Decoder(kinds)
        self._out = collections.deque()  # [bytes left, descriptor or None]
        self._is_writing = self._is_ended = self._is_over = False
        loop.add_reader(sock.fileno(), self._readable)

    def send(self, kind, call=0, meta=None, body=b""):
        """Sends a frame, now or when there is room. Nothing happens after the end."""
        if self._is_over:
            return
        head, apart = encode(kind, call, meta, body)
        if apart:
            self._out.append([memoryview(head), attachment(body)])
        else:
            self._out.append([memoryview(head + bytes(body) if len(body) else head), None])
        if not self._is_writing:
            self._writable()

    def is_drained(self):
        """Whether all that was sent is with the system."""
        return self._is_over or not self._out

    def close(self):
        """Ends the channel without a call of `on_end`."""
        if self._is_over:
            return
        self._is_over = True
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        for _, file in self._out:
            if file is not None:
                os.close(file)
        self._out.clear()
        self._decoder.close()
        self._sock.close()

    def _end(self, error):
        if not self._is_ended:
            self._is_ended = True
            if not self._is_over:
                self._loop.remove_reader(self._sock.fileno())
            self._on_end(error)

    def _readable(self):
        try:
            data, files = _receive(self._sock)
        except (BlockingIOError, InterruptedError):
            return
        except ProtocolError as error:
            self._end(error)
            return
        except OSError as error:
            # The other end died with bytes of ours unread: an end like any other.
            self._end(None if error.errno == errno.ECONNRESET else error)
            return
        if not data:
            self._end(ProtocolError("the stream ends inside a frame") if self._decoder.in_the_middle() else None)
            return
        try:
            arrived = self._decoder.feed(data, files)
        except ProtocolError as error:
            self._end(error)
            return
        for frame in arrived:
            self._on_frame(frame)

    def _writable(self):
        try:
            while self._out:
                first = self._out[0]
                data, file = first
                sent = socket.send_fds(self._sock, [data], [file]) if file is not None else self._sock.send(data)
                if file is not None:
                    os.close(file)
                    first[1] = None
                first[0] = data[sent:]
                if not first[0]:
                    self._out.popleft()
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            self.close()
            self._end(None if error.errno in (errno.EPIPE, errno.ECONNRESET) else error)
            return
        if bool(self._out) == self._is_writing:
            return
        self._is_writing = bool(self._out)
        if self._is_writing:
            self._loop.add_writer(self._sock.fileno(), self._writable)
        else:
            self._loop.remove_writer(self._sock.fileno())


def _receive(sock):
    data, files, flags, _ = socket.recv_fds(sock, 1 << 18, 16, getattr(socket, "MSG_CMSG_CLOEXEC", 0x40000000))
    if flags & socket.MSG_CTRUNC:
        for file in files:
            os.close(file)
        raise ProtocolError("more descriptors came with a frame than fit")
    return data, files
