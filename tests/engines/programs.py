"""Builds the programs of the engine tests against an installed tree, and runs them."""

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PREFIX = Path(os.environ.get("PB_TEST_PREFIX", ROOT / "build" / "prefix")).resolve()
FLAGS = ["-std=c99", "-D_GNU_SOURCE", "-O1", "-g", "-Wall", "-Wextra", "-Werror"]


def _package():
    """The compiler's and the linker's arguments for the installed package."""
    pc = next(PREFIX.glob("**/pkgconfig/parallel_backend.pc"))
    environment = {**os.environ, "PKG_CONFIG_PATH": str(pc.parent)}

    def ask(*arguments):
        command = ["pkg-config", *arguments, "parallel_backend"]
        return shlex.split(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)

    library = ask("--variable=libdir")[0]
    return ask("--cflags"), [*ask("--libs"), f"-Wl,-rpath,{library}"]


class Programs:
    """Libraries of tasks, and programs that are no more than a call into one."""

    def __init__(self):
        self._folder = tempfile.TemporaryDirectory(prefix="pb-engines-")
        self.folder = Path(self._folder.name)
        self.cflags, self.libs = _package()

    def close(self):
        self._folder.cleanup()

    def compile(self, output, *arguments):
        command = ["cc", *FLAGS, *self.cflags, "-o", str(self.folder / output), *map(str, arguments), *self.libs]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise AssertionError(f"{shlex.join(command)}\n{done.stderr}")
        return self.folder / output

    def library(self, name, *arguments):
        return self.compile(f"lib{name}.so", "-shared", "-fPIC", *arguments)

    def program(self, name, entry, sources, *arguments, link=()):
        """A program whose code lies in lib<name>.so, all but a main() that calls `entry`. `link` is for the program alone."""
        self.library(name, *sources, *arguments)
        here = [f"-L{self.folder}", f"-l{name}", f"-Wl,-rpath,{self.folder}", *link]
        return self.compile(name, f"-DENTRY={entry}", HERE / "main.c", *here)

    def engine_maps(self):
        return self.program("engine_maps", "engine_maps", [HERE / "tasks.c"])

    def conformance(self):
        tests = ROOT / "c-tests"
        sources = [tests / "conformance.c", *sorted((tests / "conformance").glob("*.c"))]
        return self.program("conformance", "conformance_main", sources, "-Dmain=conformance_main", "-lpthread", "-lm")


class Run:
    """A program of `Programs` that has been started. It prints lines of a word and a value."""

    def __init__(self, program, *arguments, environment=None, start_new_session=False):
        environment = {"PB_PYTHON": sys.executable, **os.environ, **(environment or {})}
        self.process = subprocess.Popen(
            [str(program), *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            stdin=subprocess.DEVNULL, env=environment, start_new_session=start_new_session,
        )
        self.output = ""

    @property
    def pid(self):
        return self.process.pid

    def finish(self, patience=60):
        """Waits for its end; gives what it printed, {word: value}, with "code", its exit code."""
        try:
            self.output, _ = self.process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.output, _ = self.process.communicate()
            raise AssertionError(f"it has not ended within {patience} s; it wrote:\n{self.output}") from None
        # The last line of a kind counts, and a text may have several lines.
        body, _, text = self.output.rpartition("\ntext ")
        lines = (line.partition(" ") for line in (body or text).splitlines())
        found = {word: value for word, _, value in lines}
        if body:
            found["text"] = text.strip()
        return {**found, "code": self.process.returncode}

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def children(pid):
    """The processes whose parent is `pid`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            except OSError:
                continue
            if int(parent) == pid:
                found.append(int(entry.name))
    return found


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
