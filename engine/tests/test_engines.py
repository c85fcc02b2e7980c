"""What engines do when something is missing, without an engine: chunks are answered, whatever happens."""

import asyncio
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from parallel_backend_engine import echo_engine, engine, ray_engine, ray_worker

CHUNK = engine.Chunk(0, b"message", 1)


class Heard:
    """Notes what an engine reports."""

    def __init__(self):
        self.failures = []

    def failed(self, call, status, text):
        self.failures.append((call.number, status, text))


class Files(unittest.TestCase):
    """A call whose library goes away before a worker asks for it."""

    def setUp(self):
        folder = Path(self.enter(tempfile.TemporaryDirectory()))
        library = folder / "libpb.so"
        library.write_bytes(b"library")
        self.call = engine.Call(7)
        self.call.describe(str(library), "0", [])
        self.wanted = [self.call.files[0].sha256]
        library.unlink()

    def enter(self, context):
        self.addCleanup(context.__exit__, None, None, None)
        return context.__enter__()

    def test_ray_fails_the_call(self):
        heard = Heard()
        asyncio.run(self.ray(heard)._send_files(self.call, CHUNK, self.wanted))
        ((number, status, text),) = heard.failures
        self.assertEqual((number, status), (7, "PB_ERR_TASK_NOT_PORTABLE"))
        self.assertIn("libpb.so' to send it", text)

    def test_ray_fails_the_call_where_ray_itself_raises(self):
        heard = Heard()
        ray = self.ray(heard)
        ray._files[self.wanted[0]] = ("libpb.so", self.wanted[0], [None])
        ray._task = mock.Mock()
        ray._task.remote.side_effect = ValueError("serialised too much")
        asyncio.run(ray._send_files(self.call, CHUNK, self.wanted))
        ((_, status, text),) = heard.failures
        self.assertEqual(status, "PB_ERR_IO")
        self.assertIn("ValueError: serialised too much", text)

    def ray(self, heard):
        made = ray_engine.RayEngine({}, "0", heard)
        made._loop, made._cluster, made._files = mock.Mock(), "the cluster", {}
        made._loop.run_in_executor = lambda _, function: asyncio.get_running_loop().run_in_executor(None, function)
        made._calls, made._books = {7: self.call}, {7: ray_engine.Books()}
        return made

    def test_echo_fails_the_chunk(self):
        echo = echo_engine.EchoEngine({}, "0", Heard())
        echo._has_library = True
        with mock.patch.object(echo_engine.shim, "run_chunk", return_value=("need", "w", self.wanted)):
            kind, _, status, text = echo._run(self.call, CHUNK)
            self.assertEqual((kind, status), ("error", "PB_ERR_TASK_NOT_PORTABLE"))
            with mock.patch.object(echo_engine.engine, "files_for"), mock.patch.object(echo_engine.shim, "put_files", return_value=None):
                self.assertEqual(echo._run(self.call, CHUNK)[:3], ("error", "w", "PB_ERR_IO"))


class Counts(unittest.TestCase):
    def test_a_count_is_a_whole_number_of_at_least_one(self):
        count = lambda text: engine.Engine({"threads": text}, "0", Heard()).count("threads", 5)
        self.assertEqual(engine.Engine({}, "0", Heard()).count("threads", 5), 5)
        self.assertEqual(count("12"), 12)
        for text in ("", "0", "-1", "0.5", "1e3", "1_0", "\u0663", "inf", "9" * 5000):
            with self.assertRaisesRegex(engine.EngineError, "no whole number"):
                count(text)


class RayWorker(unittest.TestCase):
    """A chunk that needs files, on a worker that gets some with it."""

    def setUp(self):
        self.shim = mock.Mock()
        self.shim.put_files.return_value = None
        self.addCleanup(ray_worker._state.clear)
        ray_worker._state.update(interrupts=ray_worker.Nobody(), calls=set())

    def run_chunk(self, outcomes, files):
        self.shim.run_chunk.side_effect = outcomes
        with mock.patch.object(ray_worker, "_fetch", lambda files, wanted: wanted):
            return ray_worker.run_chunk(self.shim, ray_worker.head_of(1, [], b"{}"), b"message", None, files)

    def test_it_stores_what_it_was_sent(self):
        outcome = self.run_chunk([("need", "w", ["new"]), ("done", "w", b"reply")], [("name", "new", [])])
        self.assertEqual(ray_worker.outcome_of(outcome), ("done", "w", b"reply"))
        self.shim.put_files.assert_called_once_with(["new"])

    def test_it_asks_for_what_was_not_among_it(self):
        outcome = self.run_chunk([("need", "w", ["new"])], [("name", "old", [])])
        self.assertEqual(outcome, ("need", "w", ["new"]))

    def test_it_does_not_ask_for_ever(self):
        outcome = self.run_chunk([("need", "w", ["new"])] * 2, [("name", "new", [])])
        self.assertEqual(outcome[:3], ("error", "w", "PB_ERR_IO"))


if __name__ == "__main__":
    unittest.main()
