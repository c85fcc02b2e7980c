"""What of the shim can be tested without libparallel_backend: the cache of files, and failures as values."""

import hashlib
import json
import os
import tempfile
import unittest
from unittest import mock

from parallel_backend_engine import shim

CONTENT = b"the bytes of a library"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def spec(name="libtask.so", sha256=SHA256, path="/nowhere/libtask.so"):
    library = [name, sha256, path]
    return json.dumps({"call": 1, "version": "0.1.0", "library": library, "files": [], "has_ctx": False}).encode()


class Cache(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = directory.name
        for patch in (
            mock.patch.object(tempfile, "tempdir", self.root),
            mock.patch.object(shim, "_state", shim._State()),
        ):
            patch.start()
            self.addCleanup(patch.stop)
        self.directory = os.path.join(self.root, f"pb-{os.getuid()}", SHA256)
        self.place = os.path.join(self.directory, "libtask.so")

    def store(self):
        return shim.put_files([("libtask.so", SHA256, CONTENT)])

    def find(self):
        return shim._find("libtask.so", SHA256, "/nowhere/libtask.so")

    def test_what_is_stored_is_found(self):
        self.assertIsNone(self.find())
        self.assertIsNone(self.store())
        self.assertEqual(self.find(), self.place)
        self.assertIsNone(self.store(), "storing it twice is fine")
        self.assertEqual(os.listdir(self.directory), ["libtask.so"], "nothing else is left behind")

    def test_nobody_else_can_look_into_it(self):
        self.store()
        for path in (os.path.dirname(self.directory), self.directory, self.place):
            self.assertEqual(os.stat(path).st_mode & 0o777, 0o700, path)

    def test_the_same_path_is_used_where_it_has_the_same_bytes(self):
        path = os.path.join(self.root, "here.so")
        with open(path, "wb") as file:
            file.write(CONTENT)
        self.assertEqual(shim._find("here.so", SHA256, path), path)
        with open(path, "ab") as file:
            file.write(b"!")
        self.assertIsNone(shim._find("here.so", SHA256, path))

    def test_a_relative_path_means_nothing_on_a_worker(self):
        self.assertIsNone(shim._find("shim.py", shim._hash(shim.__file__), os.path.relpath(shim.__file__)))

    def test_a_file_that_was_tampered_with_is_not_loaded(self):
        self.store()
        before = os.stat(self.place)
        with open(self.place, "r+b") as file:
            file.write(b"T")
        os.utime(self.place, ns=(before.st_atime_ns, before.st_mtime_ns))
        self.assertIsNone(self.find(), "though it looks the same from outside")

    def test_a_file_that_others_can_write_is_not_loaded(self):
        self.store()
        os.chmod(self.place, 0o722)
        self.assertIsNone(self.find())

    def test_a_link_is_not_followed(self):
        self.store()
        elsewhere = os.path.join(self.root, "elsewhere")
        os.rename(self.place, elsewhere)
        os.symlink(elsewhere, self.place)
        self.assertIsNone(self.find())

    def test_a_directory_of_somebody_elses_is_refused(self):
        os.mkdir(os.path.dirname(self.directory), 0o777)
        os.chmod(os.path.dirname(self.directory), 0o777)
        status, text = self.store()
        self.assertEqual(status, "PB_ERR_IO")
        self.assertIn("others may write", text)
        self.assertIn("TMPDIR", text)

    def test_a_cache_that_cannot_be_written_says_what_to_do(self):
        with open(os.path.join(self.root, "file"), "wb"):
            pass
        with mock.patch.object(tempfile, "tempdir", os.path.join(self.root, "file")):
            status, text = self.store()
        self.assertEqual(status, "PB_ERR_IO")
        self.assertIn("TMPDIR", text)

    def test_damage_on_the_way_is_noticed(self):
        status, text = shim.put_files([("libtask.so", SHA256, CONTENT + b"!")])
        self.assertEqual(status, "PB_ERR_IO")
        self.assertIn("damaged", text)

    def test_names_lead_nowhere_else(self):
        for name, sha256 in (("../x", SHA256), ("", SHA256), ("..", SHA256), ("x", "../../.."), ("x", "Z" * 64)):
            self.assertEqual(shim.put_files([(name, sha256, CONTENT)])[0], "PB_ERR_INTERNAL")

    def test_a_missing_file_is_asked_for(self):
        outcome = shim.run_chunk(spec(), b"")
        self.assertEqual((outcome[0], outcome[2]), ("need", [SHA256]))

    def test_what_is_no_library_is_an_error_with_the_worker(self):
        self.store()
        kind, worker, status, text = shim.run_chunk(spec(), b"")
        self.assertEqual((kind, status), ("error", "PB_ERR_TASK_NOT_PORTABLE"))
        self.assertIn("no ELF file", text)
        self.assertIn(worker, text)

    def test_a_library_of_another_machine_is_not_loaded(self):
        with open("/proc/self/exe", "rb") as file:
            head = bytearray(file.read(64))
        head[18:20] = (243).to_bytes(2, "little")  # RISC-V
        sha256 = hashlib.sha256(head).hexdigest()
        shim.put_files([("libtask.so", sha256, bytes(head))])
        _, _, status, text = shim.run_chunk(spec(sha256=sha256), b"")
        self.assertEqual(status, "PB_ERR_TASK_NOT_PORTABLE")
        self.assertIn("machine 243", text)

    def test_broken_input_is_a_value_too(self):
        self.assertEqual(shim.run_chunk(b"no json", b"")[0], "error")


class Memory(unittest.TestCase):
    def test_ctx_is_aligned_and_the_same(self):
        for size in (0, 1, 63, 64, 1000):
            data = os.urandom(size)
            aligned = shim._aligned(data)
            self.assertEqual(bytes(aligned), data)
            with shim._address(aligned) as (address, length):
                self.assertEqual((length, size and address % 64), (size, 0))


if __name__ == "__main__":
    unittest.main()
