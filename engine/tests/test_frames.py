"""The codec: whatever comes in, it is frames or a ProtocolError."""

import asyncio
import os
import random
import socket
import unittest

from parallel_backend_engine import frames
from parallel_backend_engine.frames import Decoder, Frame, ProtocolError


def whole(kind, call=0, meta=None, body=b""):
    head, apart = frames.encode(kind, call, meta, body)
    assert not apart
    return head + body


def decoded(data, files=()):
    return Decoder().feed(data, files)


class Codec(unittest.TestCase):
    def refused(self, part, data, files=()):
        with self.assertRaises(ProtocolError) as raised:
            decoded(data, files)
        self.assertIn(part, str(raised.exception))

    def changed(self, at, value):
        data = bytearray(whole(frames.SUBMIT, 7, {"chunks": []}))
        data[at : at + len(value)] = value
        return bytes(data)

    def test_what_was_encoded_is_decoded(self):
        frame = Frame(frames.SUBMIT, 1 << 63, {"chunks": [[0, 5, 2]], "text": "é"}, b"hello")
        self.assertEqual(decoded(whole(*frame)), [frame])

    def test_frames_arrive_in_any_pieces(self):
        stream = whole(frames.HELLO, 0, {"a": 1}) + whole(frames.SUBMIT, 2, {}, b"xyz") + whole(frames.SHUTDOWN)
        for size in (1, 2, 7, 31, 32, 33, len(stream)):
            decoder, got = Decoder(), []
            for at in range(0, len(stream), size):
                got += decoder.feed(stream[at : at + size])
            self.assertEqual([frame.kind for frame in got], [frames.HELLO, frames.SUBMIT, frames.SHUTDOWN])
            self.assertEqual(got[1].body, b"xyz")
            self.assertFalse(decoder.in_the_middle())

    def test_the_end_inside_a_frame_is_noticed(self):
        decoder = Decoder()
        decoder.feed(whole(frames.HELLO)[:-1])
        self.assertTrue(decoder.in_the_middle())

    def test_each_field_is_checked(self):
        self.refused("begins with", self.changed(0, b"X"))
        self.refused("begins with", b"GET / HTTP/1.1")
        self.refused("version 2", self.changed(4, b"\2"))
        self.refused("no frame of type 99", self.changed(6, b"\x63"))
        self.refused("no frame of type 18", whole(frames.RESULTS))
        self.refused("bytes of meta", self.changed(16, b"\xff\xff\xff\xff"))
        self.refused("2 descriptors", self.changed(20, b"\2"))
        self.refused("bytes of body", self.changed(24, b"\xff" * 8))
        self.refused("no JSON", self.changed(32, b"["))
        self.refused("no object", whole(frames.HELLO, 0, [1]))
        self.refused("no JSON", self.changed(33, b"\xff"))

    def test_a_lying_length_allocates_nothing(self):
        # A gigabyte is announced: the decoder waits for it, with no more memory than came.
        decoder = Decoder()
        self.assertEqual(decoder.feed(self.changed(24, (frames.BODY_MOST).to_bytes(8, "little"))), [])
        self.assertTrue(decoder.in_the_middle())

    def test_any_mutation_is_frames_or_an_error(self):
        chance = random.Random(1)
        seed = whole(frames.HELLO, 0, {"engine": "echo"}) + whole(frames.SUBMIT, 3, {"chunks": [[0, 3, 1]]}, b"abc")
        outcomes = set()
        for _ in range(20000):
            data = bytearray(seed)
            for _ in range(chance.randrange(1, 4)):
                at = chance.randrange(len(data))
                data[at] = chance.choice((0, 1, 255, chance.randrange(256), data[at] ^ (1 << chance.randrange(8))))
            if chance.random() < 0.2:
                del data[chance.randrange(len(data)) :]
            try:
                outcomes.add(len(decoded(bytes(data))))
            except ProtocolError:
                outcomes.add("error")
        self.assertEqual(outcomes, {0, 1, 2, "error"})

    def test_too_much_is_not_encoded(self):
        with self.assertRaises(ProtocolError):
            frames.encode(frames.LOG, 0, {"text": "x" * frames.META_MOST})


class Attachments(unittest.TestCase):
    HEAD = frames.HEADER.pack(frames.MAGIC, frames.VERSION, frames.SUBMIT, 1, 2, 1, 0) + b"{}"

    def take(self, file):
        return decoded(self.HEAD, [file])[0].body

    def test_a_long_body_comes_as_a_file(self):
        body = os.urandom(1 << 21)
        self.assertTrue(frames.encode(frames.SUBMIT, 1, {}, body)[1])
        self.assertEqual(self.take(frames.attachment(body)), body)

    def test_a_file_that_could_shrink_is_copied(self):
        file = os.memfd_create("test")
        os.write(file, b"content")
        self.assertIsInstance(self.take(file), bytearray)

    def test_it_must_be_a_file(self):
        for end in os.pipe():
            with self.assertRaises(ProtocolError):
                self.take(end)
            with self.assertRaises(OSError):
                os.fstat(end)  # it was closed all the same

    def test_it_must_come(self):
        with self.assertRaises(ProtocolError):
            decoded(self.HEAD)

    def test_it_must_be_announced(self):
        decoder = Decoder()
        files = [os.open(os.devnull, os.O_RDONLY) for _ in range(frames.WAITING_MOST + 1)]
        with self.assertRaises(ProtocolError):
            decoder.feed(b"", files)
        decoder.close()
        with self.assertRaises(OSError):
            os.fstat(files[0])


class OverASocket(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        self.got, self.ends = [], []
        self.arrived = asyncio.Event()
        loop = asyncio.get_running_loop()
        near, far = socket.socketpair()
        self.raw = far
        self.near = frames.Channel(near, loop, self.take, self.end, frames.FROM_LIBRARY)
        self.addCleanup(self.near.close)
        self.addCleanup(far.close)

    def take(self, frame):
        self.got.append(frame)
        self.arrived.set()

    def end(self, error):
        self.ends.append(error)
        self.arrived.set()

    async def wait(self):
        await asyncio.wait_for(self.arrived.wait(), 10)
        self.arrived.clear()

    async def test_bodies_of_any_size_go_through_in_order(self):
        loop = asyncio.get_running_loop()
        other = frames.Channel(self.raw.dup(), loop, self.fail, lambda error: None, frames.FROM_BRIDGE)
        bodies = [os.urandom(size) for size in (0, 1, 1 << 20, (1 << 20) + 1, 5, 3 << 20)] * 3
        for number, body in enumerate(bodies):
            other.send(frames.SUBMIT, number, {"n": number}, body)
        while len(self.got) < len(bodies):
            await self.wait()
        self.assertEqual([frame.call for frame in self.got], list(range(len(bodies))))
        for frame, body in zip(self.got, bodies):
            self.assertEqual(bytes(frame.body), body)
        self.assertTrue(other.is_drained())
        other.close()

    async def test_the_end_between_frames_is_no_error(self):
        self.raw.sendall(whole(frames.SHUTDOWN))
        self.raw.shutdown(socket.SHUT_WR)
        while not self.ends:
            await self.wait()
        self.assertEqual((len(self.got), self.ends), (1, [None]))

    async def test_the_end_inside_a_frame_is_one(self):
        self.raw.sendall(whole(frames.SHUTDOWN)[:-1])
        self.raw.shutdown(socket.SHUT_WR)
        await self.wait()
        self.assertIsInstance(self.ends[0], ProtocolError)


if __name__ == "__main__":
    unittest.main()
