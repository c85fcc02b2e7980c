"""The backend `dask` on real clusters: the conformance suite, and every fault that a cluster has.

Schedulers and workers are processes of their own on 127.0.0.1. Only processes that a test has started are killed.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import venv
from pathlib import Path

from dask_clusters import DaskCluster, wait_until
from distributed import LocalCluster
from programs import HERE, PREFIX, ROOT, Programs, Run, children, is_alive

sys.path.insert(0, str(ROOT / "engine"))
from parallel_backend_engine import frames  # noqa: E402
from tests.host import Host  # noqa: E402

programs = maps = cluster = None


def setUpModule():
    global programs, maps, cluster
    programs = Programs()
    unittest.addModuleCleanup(programs.close)
    maps = programs.engine_maps()
    cluster = DaskCluster(workers=2, threads=2)
    unittest.addModuleCleanup(cluster.close)


class Case(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="pb-test-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def cluster(self, *arguments, **more):
        made = DaskCluster(*arguments, **more)
        self.addCleanup(made.close)
        return made

    def start(self, params, *scenario, program=None, **more):
        run = Run(program or maps, "dask", params, *scenario, **more)
        self.addCleanup(run.kill)
        return run

    def run_maps(self, params, *scenario, **more):
        return self.start(params, *scenario, **more).finish()

    def good(self, found):
        self.assertEqual((found["code"], found["status"]), (0, "PB_OK"), found)
        self.assertEqual(found.get("wrong", "0"), "0", found)
        return found

    def bad(self, found, status, *parts):
        self.assertEqual((found["code"], found["status"]), (1, status), found)
        for part in parts:
            self.assertIn(part, found["text"])
        return found

    def begun(self, count=1):
        """Waits until so many items of `hold` have begun; gives the pids of their workers."""
        wait_until(lambda: len(list(self.folder.glob("begun-*"))) >= count, f"{count} items begin")
        return {int(path.name.split("-")[2]) for path in self.folder.glob("begun-*")}

    def running(self):
        """Items of `hold` that have begun and not ended, in workers that live."""
        begun = {path.name.partition("-")[2] for path in self.folder.glob("begun-*")}
        ended = {path.name.partition("-")[2] for path in self.folder.glob("ended-*")}
        return {item for item in begun - ended if is_alive(int(item.split("-")[1]))}

    def bridge_of(self, run):
        return wait_until(lambda: children(run.pid), "the bridge starts")[0]

    def nothing_is_left(self, where=None):
        where = where or cluster
        wait_until(lambda: not self.running(), "no item runs any more", 5)
        wait_until(lambda: where.tasks() == 0, "the scheduler knows no task", 5)


class Conformance(Case):
    def test_the_suite(self):
        wide = self.cluster(workers=2, threads=4)
        command = ["dask", "--params", wide.params(), "--slow", "--separate-memory"]
        run = Run(programs.conformance(), *command)
        self.addCleanup(run.kill)
        run.finish(170)
        self.assertIn("all passed", run.output)


class Maps(Case):
    def test_a_map(self):
        found = self.good(self.run_maps(cluster.params(), "squares", 5000))
        self.assertEqual(found["n_jobs"], "4")

    def test_by_address(self):
        self.good(self.run_maps(f"address={cluster.address}", "squares"))

    def test_on_this_machine(self):
        self.good(self.run_maps("address=local;threads=1", "squares"))

    def test_ctx_of_any_size(self):
        for size in (1000, 100_000, 300_000, 20_000_000):
            with self.subTest(size=size):
                self.good(self.run_maps(cluster.params(), "ctx", size, 20))

    def test_bytes_of_any_size(self):
        for size_in, size_out, items in ((0, 0, 100), (100, 100, 1000), (3 << 20, 1 << 20, 5)):
            with self.subTest(size_in=size_in, size_out=size_out):
                self.good(self.run_maps(cluster.params(), "bytes", size_in, size_out, items))

    def test_a_task_has_its_share_of_its_machine(self):
        for threads, expected in ((1, "2 2 2 2"), (2, "1 1 1 1")):
            with self.subTest(threads=threads):
                # PB_MAX_CPU_COUNT stands for a machine of two CPUs.
                small = self.cluster(workers=1, threads=threads, environment={"PB_MAX_CPU_COUNT": "2"})
                self.assertEqual(self.good(self.run_maps(small.params(), "shares"))["shares"], expected)

    def test_two_programs_at_once(self):
        runs = [self.start(cluster.params(), "ctx", 1_000_000, 50) for _ in range(2)]
        for run in runs:
            self.good(run.finish())

    def test_a_worker_that_comes_in_the_middle_of_a_call_is_used(self):
        growing = self.cluster(workers=1, threads=1)
        run = self.start(growing.params(), "hold", self.folder, 12)
        before = self.begun(1)
        growing.add_worker()
        wait_until(lambda: self.begun(2) - before, "the new worker begins an item")
        (self.folder / "release").touch()
        self.good(run.finish())

    def test_a_cluster_that_adapts_grows_for_a_call_and_shrinks_after_it(self):
        with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0", silence_logs=60) as adapting:
            adapting.adapt(minimum=1, maximum=3, interval="200ms")
            workers = {"PB_TEST_WORKERS": "3"}
            run = self.start(f"address={adapting.scheduler_address}", "spread", self.folder, 20_000, environment=workers)
            wait_until(lambda: len(list(self.folder.glob("worker-*"))) == 3, "three workers work")
            (self.folder / "release").touch()
            self.good(run.finish())
            wait_until(lambda: len(adapting.workers) == 1, "two workers have left")

    def test_a_cluster_without_workers_is_waited_for(self):
        empty = self.cluster(workers=0)
        run = self.start(empty.params(), "squares")
        with empty.client() as client:
            wait_until(lambda: client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)), "a task waits")
        empty.add_worker()
        self.good(run.finish())


class Shipping(Case):
    def elsewhere(self, **more):
        """A cluster whose workers do not see the files of this test."""
        environment = {"PB_TEST_HIDE": f"{programs.folder}:{PREFIX}"}
        return self.cluster(workers=1, environment=environment, options=["--preload", HERE / "hide.py"], **more)

    def test_libraries_are_sent_to_workers_that_lack_them(self):
        far = self.elsewhere()
        self.good(self.run_maps(far.params(), "squares"))
        cache = far.folder / "tmp" / f"pb-{os.getuid()}"
        names = sorted(path.name for path in cache.glob("*/*"))
        self.assertEqual(names, ["libengine_maps.so", "libparallel_backend.so.0.1.0"])
        self.good(self.run_maps(far.params(), "squares"))

    def test_a_worker_that_is_started_again_finds_them(self):
        far = self.elsewhere()
        self.good(self.run_maps(far.params(), "die", self.folder / "marker", 1))

    def test_where_the_package_is_installed_nothing_is_uploaded(self):
        ready = self.cluster(workers=1, environment={"PYTHONPATH": str(ROOT / "engine"), "PYTHONDONTWRITEBYTECODE": "1"})
        self.good(self.run_maps(ready.params(), "squares"))
        self.assertNotIn("_pb_worker", ready.logs())

    def test_without_a_cache_the_text_says_what_to_do(self):
        far = self.elsewhere()
        (far.folder / "tmp" / f"pb-{os.getuid()}").touch()  # no directory can be made there
        self.bad(self.run_maps(far.params(), "squares"), "PB_ERR_IO", "TMPDIR", "tcp://127.0.0.1:")

    def test_a_dependency_that_the_worker_lacks_is_named(self):
        (self.folder / "dep.c").write_text("int dep(void); int dep(void) { return 0; }\n")
        (self.folder / "use.c").write_text("int dep(void); int use(void); int use(void) { return dep(); }\n")
        (self.folder / "lib").mkdir()
        dep = self.folder / "lib" / "libdep.so"
        programs.compile(dep, "-shared", "-fPIC", self.folder / "dep.c")
        sources = [HERE / "tasks.c", self.folder / "use.c"]
        needy = programs.program("needy", "engine_maps", sources, f"-L{dep.parent}", "-ldep", link=[f"-Wl,-rpath-link,{dep.parent}"])
        environment = {"LD_LIBRARY_PATH": str(dep.parent)}
        found = self.run_maps(cluster.params(), "squares", program=needy, environment=environment)
        self.bad(found, "PB_ERR_TASK_NOT_PORTABLE", "libdep.so", "tcp://127.0.0.1:")


class Deaths(Case):
    def test_an_item_whose_worker_died_is_started_again(self):
        found = self.good(self.run_maps(cluster.params(), "die", self.folder / "marker", 1))
        self.assertEqual(found["right"], "8")

    def test_an_item_that_kills_every_worker_is_named(self):
        found = self.run_maps(cluster.params(), "die", "always", 1)
        self.bad(found, "PB_ERR_WORKER_LOST", "tcp://127.0.0.1:")
        cluster.wait_for_workers(2)

    def test_where_errors_are_collected_the_others_have_their_results(self):
        alone = self.cluster(workers=2, threads=1)  # items that run beside it in the same worker would die with it
        # An item that was done, but whose news were still on their way, counts as lost too: three times is more than bad luck.
        found = self.run_maps(alone.params(), "die", "always", 3, "collect")
        self.assertEqual((found["fate"], found["right"]), ("PB_ERR_WORKER_LOST", "7"), found)

    def test_a_worker_that_is_killed_from_outside(self):
        run = self.start(cluster.params(), "hold", self.folder, 4)
        pids = self.begun(4)
        os.kill(min(pids), signal.SIGKILL)
        self.bad(run.finish(), "PB_ERR_WORKER_LOST", "killed by signal 9", "tcp://127.0.0.1:")
        self.nothing_is_left()
        cluster.wait_for_workers(2)

    def test_the_worker_that_holds_ctx_dies(self):
        alone = self.cluster(workers=1, threads=1)
        run = self.start(alone.params(), "ctx", 2_000_000, 4000)
        with alone.client() as client:
            held = lambda dask_scheduler: sum(ts.state == "memory" for ts in dask_scheduler.tasks.values())  # noqa: E731
            wait_until(lambda: client.run_on_scheduler(held), "ctx has arrived")
            pid = next(iter(client.run(os.getpid).values()))
        os.kill(pid, signal.SIGKILL)
        self.good(run.finish())

    def test_the_scheduler_is_killed(self):
        mortal = self.cluster(workers=1, nanny=False)
        run = self.start(mortal.params(), "hold", self.folder, 4)
        self.begun(1)
        killed = time.monotonic()
        mortal.scheduler.kill()
        self.bad(run.finish(), "PB_ERR_WORKER_LOST", "the Dask scheduler at", "is gone")
        self.assertLess(time.monotonic() - killed, 30)

    def test_the_bridge_is_killed(self):
        run = self.start(cluster.params(), "hold", self.folder, 4)
        self.begun(1)
        os.kill(self.bridge_of(run), signal.SIGKILL)
        self.bad(run.finish(), "PB_ERR_WORKER_LOST", "signal 9")
        (self.folder / "release").touch()
        self.nothing_is_left()

    def test_the_next_call_has_a_new_bridge(self):
        run = self.start(cluster.params(), "hold", self.folder, 2)
        self.begun(1)
        os.kill(self.bridge_of(run), signal.SIGKILL)
        run.finish()
        (self.folder / "release").touch()
        self.good(self.run_maps(cluster.params(), "squares"))

    def test_the_program_is_killed(self):
        run = self.start(cluster.params(), "hold", self.folder, 8)
        self.begun(2)
        bridge = self.bridge_of(run)
        run.kill()
        wait_until(lambda: not is_alive(bridge), "the bridge ends", 10)
        self.nothing_is_left()

    def test_a_program_with_workers_of_its_own_is_killed(self):
        run = self.start("address=local", "hold", self.folder, 4)
        workers = self.begun(1)
        bridge = self.bridge_of(run)
        run.kill()
        for pid in (bridge, *workers):
            wait_until(lambda pid=pid: not is_alive(pid), "the bridge and its workers end", 15)

    def test_a_cancelled_call_leaves_nothing_running(self):
        run = self.start(cluster.params(), "hold", self.folder, 20, "cancel")
        self.begun(4)
        (self.folder / "cancel").touch()
        self.assertEqual(self.bad(run.finish(), "PB_ERR_CANCELLED")["code"], 1)
        self.assertEqual(self.running(), set())
        self.nothing_is_left()


class Limits(Case):
    def test_a_promise_that_dask_cannot_keep_is_refused(self):
        self.bad(self.run_maps(cluster.params(), "once"), "PB_ERR_UNSUPPORTED", "PB_NON_IDEMPOTENT")

    def test_an_item_over_the_byte_cap(self):
        found = self.run_maps(cluster.params(), "bytes", 70 << 20, 10, 1)
        self.assertEqual(found["code"], 1, found)
        self.assertRegex(found["text"], f"bytes of input, more than the {64 << 20}")

    def test_results_that_are_larger_than_the_worker_s_memory(self):
        small = self.cluster(workers=1, threads=1, options=["--memory-limit", "0", "--preload", HERE / "little_memory.py"])
        found = self.run_maps(small.params(), "bytes", 10, 900 << 20, 1)
        self.assertEqual(found["code"], 1, found)
        self.assertIn(found["status"], ("PB_ERR_OUT_OF_MEMORY", "PB_ERR_TASK_FAILED"), found)
        self.assertIn("memory", found["text"])


class Starts(Case):
    def test_no_python(self):
        found = self.run_maps(f"{cluster.params()};python=/nowhere/python3", "squares")
        self.bad(found, "PB_ERR_BACKEND_UNAVAILABLE", "/nowhere/python3", "PB_PYTHON")

    def test_a_python_without_dask(self):
        venv.create(self.folder / "empty", with_pip=False, symlinks=True)
        python = self.folder / "empty" / "bin" / "python"
        found = self.run_maps(f"{cluster.params()};python={python}", "squares")
        self.bad(found, "PB_ERR_BACKEND_UNAVAILABLE", f"{python} -m pip install distributed")

    def test_a_wrong_address(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            params = f"address=tcp://127.0.0.1:{free.getsockname()[1]};start_timeout=2"
            found = self.run_maps(params, "squares")
        self.assertIn(found["status"], ("PB_ERR_BACKEND_UNAVAILABLE", "PB_ERR_TIMEOUT"), found)
        self.assertIn("no Dask scheduler at tcp://127.0.0.1:", found["text"])

    def test_no_scheduler_file(self):
        found = self.run_maps(f"scheduler_file={self.folder}/none.json", "squares")
        self.bad(found, "PB_ERR_BACKEND_UNAVAILABLE", "none.json")

    def test_a_scheduler_that_accepts_and_never_answers(self):
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            began = time.monotonic()
            params = f"address=tcp://127.0.0.1:{silent.getsockname()[1]};start_timeout=2"
            found = self.run_maps(params, "squares")
        self.bad(found, "PB_ERR_TIMEOUT", "tcp://127.0.0.1:")
        self.assertLess(time.monotonic() - began, 15)

    def test_a_scheduler_that_falls_silent(self):
        frozen = self.cluster(workers=1)
        run = self.start(f"{frozen.params()};engine_timeout=2", "hold", self.folder, 4)
        self.begun(1)
        os.kill(frozen.scheduler.pid, signal.SIGSTOP)
        self.bad(run.finish(), "PB_ERR_WORKER_LOST", "has not answered for 2 s")

    def test_no_workers(self):
        empty = self.cluster(workers=0)
        found = self.run_maps(f"{empty.params()};start_timeout=2", "squares")
        self.bad(found, "PB_ERR_TIMEOUT", "has no workers", "dask worker")

    def test_all_workers_go(self):
        dying = self.cluster(workers=1, nanny=False)
        found = self.run_maps(f"{dying.params()};engine_timeout=2", "die", "always", 9)
        self.bad(found, "PB_ERR_TIMEOUT", "has had no workers for 2 s")

    def test_an_unknown_parameter(self):
        self.bad(self.run_maps("address=local;colour=red", "squares"), "PB_ERR_INVALID_ARGUMENT", "colour")


class Versions(Case):
    def test_a_worker_with_another_version_says_so(self):
        with Host() as host:
            library = str(next(PREFIX.glob("**/libparallel_backend.so")))
            options = {"scheduler_file": str(cluster.scheduler_file)}
            self.assertEqual(host.hello("dask", options, library=library, version="9.9.9").kind, frames.READY)
            host.call(77)
            host.submit(77, [b"a chunk"])
            failed = host.expect(frames.FAILED).meta
        self.assertEqual(failed["status"], "PB_ERR_ABI", failed)
        for part in ("tcp://127.0.0.1:", "the caller has 9.9.9", "restart the workers"):
            self.assertIn(part, failed["text"])


class Security(Case):
    def certificate(self):
        """A certificate for 127.0.0.1 that is its own authority: (ca, cert, key)."""
        cert, key = self.folder / "cert.pem", self.folder / "secret-key.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
             "-keyout", key, "-out", cert], check=True, capture_output=True,
        )
        return cert, cert, key

    def test_tls(self):
        ca, cert, key = self.certificate()
        secure = self.cluster(workers=1, security=["--tls-ca-file", ca, "--tls-cert", cert, "--tls-key", key])
        tls = f"tls_ca={ca};tls_cert={cert};tls_key={key}"
        self.assertTrue(secure.address.startswith("tls://"))
        run = self.start(f"{secure.params()};{tls}", "hold", self.folder, 2)
        self.begun(1)
        bridge = self.bridge_of(run)
        for secret in ("secret-key", "scheduler.json", "127.0.0.1"):
            self.assertNotIn(secret, Path(f"/proc/{bridge}/cmdline").read_text())
        (self.folder / "release").touch()
        self.good(run.finish())
        contents = "".join(line for line in key.read_text().splitlines() if "KEY" not in line)
        for text in (run.output, secure.logs()):
            self.assertNotIn("secret-key", text)
            self.assertNotIn(contents[:40], text)
        plain = self.run_maps(f"{secure.params()};start_timeout=5", "squares")
        self.assertEqual(plain["code"], 1, plain)
        self.assertIn(plain["status"], ("PB_ERR_BACKEND_UNAVAILABLE", "PB_ERR_TIMEOUT"))


if __name__ == "__main__":
    unittest.main()
