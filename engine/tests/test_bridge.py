"""The bridge with the engine echo, without libparallel_backend: frames in, frames out."""

import os
import signal
import unittest

from parallel_backend_engine import frames
from tests.host import Host


class Session(unittest.TestCase):
    def setUp(self):
        self.host = self.enterContext(Host()) if hasattr(self, "enterContext") else self._enter(Host())

    def _enter(self, host):
        self.addCleanup(host.__exit__)
        return host

    def start(self, **options):
        ready = self.host.hello("echo", {"library": "no", **options})
        self.assertEqual(ready.kind, frames.READY)
        return ready.meta

    def refused(self, status, part):
        fatal = self.host.expect(frames.FATAL)
        self.assertEqual(fatal.meta["status"], status)
        self.assertIn(part, fatal.meta["text"])
        self.assertEqual(self.host.end_of_process(), 1)

    def test_ready_says_all(self):
        ready = self.start(threads="3")
        self.assertEqual(ready["slots"], 3)
        fields = {"engine", "engine_version", "python", "slots", "slot_cost", "least", "chunk_bytes", "credit"}
        self.assertEqual(set(ready), fields)

    def test_chunks_come_back(self):
        self.start()
        self.host.call(5)
        messages = [os.urandom(n) for n in (0, 1, 1000, 100000)] * 50
        self.host.submit(5, messages)
        self.assertEqual(self.host.results(5, len(messages)), dict(enumerate(messages)))

    def test_long_chunks_come_back(self):
        self.start()
        self.host.call()
        messages = [os.urandom(3 << 20), os.urandom(5 << 20)]
        self.host.submit(1, messages)
        self.assertEqual(self.host.results(1, 2), dict(enumerate(messages)))

    def test_results_are_gathered_into_frames(self):
        self.start(threads="1")
        self.host.call()
        self.host.submit(1, [b"x"] * 1000)
        seen = 0
        while seen < 1000:
            chunks = self.host.expect(frames.RESULTS).meta["chunks"]
            self.assertLessEqual(len(chunks), 64)
            seen += len(chunks)

    def test_calls_do_not_mix(self):
        self.start()
        for number in (1, 2):
            self.host.call(number)
        self.host.submit(1, [b"one"])
        self.assertEqual(self.host.results(1, 1), {0: b"one"})
        self.host.submit(2, [b"two"], first=9)
        self.assertEqual(self.host.results(2, 1), {9: b"two"})

    def test_what_is_said_to_a_call_that_is_over_means_nothing(self):
        self.start()
        self.host.call(1)
        self.host.send(frames.END, 1)
        self.host.submit(1, [b"late"])
        self.host.send(frames.CANCEL, 1)
        self.host.call(2)
        self.host.submit(2, [b"next"])
        self.assertEqual(self.host.results(2, 1), {0: b"next"})

    def test_cancel_is_answered_once(self):
        self.start()
        self.host.call()
        for _ in range(2):
            self.host.send(frames.CANCEL, 1)
        cancelled = self.host.expect(frames.CANCELLED)
        self.assertEqual((cancelled.call, cancelled.meta), (1, {"running": 0, "workers": []}))
        self.host.send(frames.END, 1)
        self.host.call(2)
        self.host.submit(2, [b"next"])
        self.assertEqual(self.host.results(2, 1), {0: b"next"})

    def test_a_file_that_is_not_there_fails_its_call_alone(self):
        self.start()
        self.host.call(1, files=["/nowhere/libtask.so"])
        failed = self.host.expect(frames.FAILED)
        self.assertEqual((failed.call, failed.meta["status"]), (1, "PB_ERR_TASK_NOT_PORTABLE"))
        self.assertIn("/nowhere/libtask.so", failed.meta["text"])
        self.host.call(2)
        self.host.submit(2, [b"x"])
        self.host.results(2, 1)

    def test_it_ends_when_asked(self):
        self.start()
        self.host.send(frames.SHUTDOWN)
        self.assertEqual(self.host.end_of_process(), 0)

    def test_it_ends_with_its_host(self):
        self.start()
        self.host.call()
        self.host.submit(1, [b"x"] * 100)
        self.host.sock.close()
        self.assertEqual(self.host.process.wait(10), 0)

    def test_it_ends_when_told_by_a_signal(self):
        self.start()
        self.host.process.send_signal(signal.SIGTERM)
        self.assertEqual(self.host.end_of_process(), 128 + signal.SIGTERM)

    def test_an_unknown_engine(self):
        self.host.send(frames.HELLO, 0, {"engine": "spark", "version": "0", "library": "x"})
        self.refused("PB_ERR_UNKNOWN_BACKEND", "spark")

    def test_an_unknown_parameter_is_named(self):
        self.host.send(frames.HELLO, 0, {"engine": "echo", "version": "0", "library": "x", "options": {"colour": "red"}})
        self.refused("PB_ERR_INVALID_ARGUMENT", "'colour'; it has: library, threads")

    def test_threads_are_counted_whole(self):
        meta = {"engine": "echo", "version": "0", "library": "x", "options": {"threads": "0.5"}}
        self.host.send(frames.HELLO, 0, meta)
        self.refused("PB_ERR_INVALID_ARGUMENT", "'threads=0.5' of backend 'echo' is no whole number")

    def test_a_frame_before_its_time(self):
        self.host.call()
        self.refused("PB_ERR_INTERNAL", "before READY")

    def test_a_second_hello(self):
        self.start()
        self.host.send(frames.HELLO, 0, {"engine": "echo", "version": "0", "library": "x"})
        self.refused("PB_ERR_INTERNAL", "a second HELLO")

    def test_sizes_that_do_not_fit(self):
        self.start()
        self.host.call()
        self.host.send(frames.SUBMIT, 1, {"chunks": [[0, 10, 1]]}, b"short")
        self.refused("PB_ERR_INTERNAL", "chunks of 10 bytes with a body of 5")

    def test_garbage_ends_the_session_with_a_text(self):
        self.start()
        self.host.sock.sendall(b"GET / HTTP/1.1\r\n\r\n" * 10)
        self.refused("PB_ERR_INTERNAL", "a frame begins with b'GET '")


if __name__ == "__main__":
    unittest.main()
