"""The backend ray against a real cluster: what is right, and what becomes of every fault.

The cluster's workers see neither the library nor the tasks under their paths, as on another machine: both are sent to them.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from dask_clusters import wait_until
from programs import HERE, PREFIX, Programs, Run, children, is_alive
from ray_clusters import RayCluster, command_lines


def setUpModule():
    global programs, maps, cluster
    programs = Programs()
    unittest.addModuleCleanup(programs.close)
    maps = programs.engine_maps()
    (programs.folder / "blind").mkdir()
    # A file of this name is read by every Python that starts.
    shutil.copy(HERE / "hide.py", programs.folder / "blind/sitecustomize.py")
    environment = {"PYTHONPATH": str(programs.folder / "blind"), "PB_TEST_HIDE": f"{PREFIX}:{programs.folder}"}
    cluster = RayCluster(cpus=2, environment=environment)
    unittest.addModuleCleanup(cluster.close)


class OnRay(unittest.TestCase):
    def begin(self, *scenario, to=None, params="", **more):
        """Starts a program of maps on a cluster."""
        there = to or cluster
        run = Run(maps, "ray", f"address={there.address};{params}", *scenario, environment=there.entry, **more)
        self.addCleanup(run.kill)
        return run

    def run_maps(self, *scenario, **more):
        return self.begin(*scenario, **more).finish()

    def fails(self, done, status, *parts):
        self.assertEqual(done.get("status"), status, done)
        for part in parts:
            self.assertIn(part, done["text"])

    def folder(self):
        place = tempfile.TemporaryDirectory()
        self.addCleanup(place.cleanup)
        return Path(place.name)

    def holding(self, folder, items=2, *more, **named):
        """A program whose two items are running, and the bridge that it has."""
        run = self.begin("hold", folder, items, *more, **named)
        wait_until(lambda: len(list(folder.glob("begun-*"))) >= 2, "two items have begun")
        (bridge,) = children(run.pid)
        return run, bridge


class Maps(OnRay):
    def test_results_are_right(self):
        done = self.run_maps("squares", 5000)
        self.assertEqual((done["status"], done["wrong"], done["n_jobs"]), ("PB_OK", "0", "2"), done)

    def test_a_large_ctx_comes_once_and_aligned(self):
        done = self.run_maps("ctx", 64 << 20, 20)
        self.assertEqual((done["status"], done["wrong"]), ("PB_OK", "0"), done)

    def test_large_inputs_and_results(self):
        done = self.run_maps("bytes", 1 << 20, 3 << 20, 12)
        self.assertEqual((done["status"], done["wrong"]), ("PB_OK", "0"), done)

    def test_a_task_has_the_one_cpu_that_it_asked_for(self):
        self.assertEqual(self.run_maps("shares")["shares"], "1 1 1 1")

    def test_two_sessions_at_once(self):
        runs = [self.begin("squares", 2000) for _ in range(2)]
        for done in [run.finish() for run in runs]:
            self.assertEqual((done["status"], done["wrong"]), ("PB_OK", "0"), done)

    def test_a_cluster_of_its_own_which_ends_with_the_program(self):
        run = Run(maps, "ray", "address=local", "squares", 1000)
        self.addCleanup(run.kill)
        done = run.finish()
        self.assertEqual((done["status"], done["wrong"]), ("PB_OK", "0"), done)
        self.assertEqual(list(Path("/tmp").glob("pb-ray-*")), [])
        self.assertEqual([line for line in command_lines().values() if "/tmp/pb-ray-" in line], [])


class Deaths(OnRay):
    def test_a_dead_worker_is_an_error_that_says_so(self):
        self.fails(self.run_maps("die", "always", 0), "PB_ERR_WORKER_LOST", "item 3", "died")

    def test_its_item_is_started_again(self):
        done = self.run_maps("die", self.folder() / "died", 1)
        self.assertEqual((done["status"], done["right"]), ("PB_OK", "8"), done)

    def test_no_more_often_than_asked(self):
        done = self.run_maps("die", "always", 2)
        self.fails(done, "PB_ERR_WORKER_LOST", "item 3")
        self.assertEqual(done["attempts"], "3")

    def test_other_items_keep_their_results(self):
        done = self.run_maps("die", "always", 0, "collect")
        self.assertEqual((done["right"], done["fate"]), ("7", "PB_ERR_WORKER_LOST"), done)

    def test_what_must_not_run_twice_does_not(self):
        folder = self.folder()
        self.fails(self.run_maps("fence", folder), "PB_ERR_WORKER_LOST")
        started = [path.name for path in folder.glob("begun-*")]
        items = [name.split("-")[1] for name in started]
        self.assertIn("3", items)
        self.assertEqual(sorted(set(items)), sorted(items), "an item was started twice")

    def test_without_a_death_it_is_an_ordinary_map(self):
        self.assertEqual(self.run_maps("once")["status"], "PB_OK")


class Ends(OnRay):
    def test_cancelled_items_are_told_and_nothing_runs_on(self):
        folder = self.folder()
        run, _ = self.holding(folder, 8, "cancel")
        (folder / "cancel").touch()
        self.fails(run.finish(), "PB_ERR_CANCELLED")
        begun, ended = (sorted(path.name[6:] for path in folder.glob(f"{what}-*")) for what in ("begun", "ended"))
        self.assertEqual(begun, ended)
        self.assertEqual(len(begun), 2, "a chunk began after the cancel")

    def test_a_bridge_that_is_killed_ends_the_call_and_the_next_has_a_new_one(self):
        run, bridge = self.holding(self.folder())
        os.kill(bridge, signal.SIGKILL)
        self.fails(run.finish(), "PB_ERR_WORKER_LOST", "bridge")
        wait_until(lambda: not cluster.busy_workers(), "no task runs any more")

    def test_when_the_program_is_killed_nothing_is_left(self):
        run, bridge = self.holding(self.folder())
        os.kill(run.pid, signal.SIGKILL)
        wait_until(lambda: not is_alive(bridge), "the bridge has ended")
        wait_until(lambda: not cluster.busy_workers(), "no task runs any more")

    def test_when_the_program_is_killed_while_its_bridge_waits_for_a_cluster_nothing_is_left(self):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            run = Run(maps, "ray", f"address=127.0.0.1:{silent.getsockname()[1]}", "once")
            self.addCleanup(run.kill)
            silent.settimeout(60)
            for _ in range(2):  # the look whether somebody is there, and Ray itself
                silent.accept()
            (bridge,) = children(run.pid)
            os.kill(run.pid, signal.SIGKILL)
            wait_until(lambda: not is_alive(bridge), "the bridge has ended")

    def test_secrets_are_in_no_command_line(self):
        folder = self.folder()
        run, _ = self.holding(folder)
        shown = "".join(command_lines().values())
        (folder / "release").touch()
        self.assertEqual(run.finish()["status"], "PB_OK")
        self.assertNotIn(cluster.entry["RAY_AUTH_TOKEN"], shown)

    def test_a_cluster_whose_control_service_is_gone(self):
        with RayCluster(cpus=2) as doomed:
            run, _ = self.holding(self.folder(), to=doomed, params="engine_timeout=4")
            os.kill(doomed.pid_of("gcs_server"), signal.SIGKILL)
            self.fails(run.finish(), "PB_ERR_WORKER_LOST", "GCS", doomed.address)


class Refusals(OnRay):
    def refused(self, params, status, *parts, environment=None):
        run = Run(maps, "ray", params, "once", environment=environment)
        self.addCleanup(run.kill)
        self.fails(run.finish(), status, *parts)

    def test_nobody_there(self):
        with socket.create_server(("127.0.0.1", 0)) as unused:
            port = unused.getsockname()[1]
        self.refused(f"address=127.0.0.1:{port}", "PB_ERR_BACKEND_UNAVAILABLE", f"127.0.0.1:{port}", "ray start --head")

    def test_somebody_who_does_not_answer(self):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            self.refused(f"address=127.0.0.1:{port};start_timeout=3", "PB_ERR_TIMEOUT", f"127.0.0.1:{port}", "3 s")

    def test_no_address_of_that_kind(self):
        self.refused("address=ray://127.0.0.1:10001", "PB_ERR_INVALID_ARGUMENT", "address=auto")
        self.refused("address=nonsense", "PB_ERR_INVALID_ARGUMENT", "HOST:PORT")

    def test_no_cluster_on_this_machine(self):
        self.refused(
            "address=auto", "PB_ERR_BACKEND_UNAVAILABLE", "ray start", environment={"RAY_TMPDIR": "/nowhere"}
        )

    def test_a_python_without_ray(self):
        bare = self.folder() / "bare"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
        python = bare / "bin/python"
        self.refused(f"address=local;python={python}", "PB_ERR_BACKEND_UNAVAILABLE", f"{python} -m pip install ray")

    def test_another_token(self):
        entry = {**cluster.entry, "RAY_AUTH_TOKEN": "0" * 64}
        params = f"address={cluster.address};start_timeout=3"
        self.refused(params, "PB_ERR_TIMEOUT", "Authentication token is missing or incorrect", environment=entry)

    def test_another_version(self):
        older = "import ray; ray.__version__ = '2.1.0'; from ray.scripts.scripts import main; main()"
        with RayCluster(start=older) as other:
            params = f"address={other.address}"
            self.refused(params, "PB_ERR_BACKEND_UNAVAILABLE", "Ray: 2.1.0", "Version mismatch", environment=other.entry)

    def test_a_cluster_without_cpus(self):
        with RayCluster(cpus=0) as empty:
            params = f"address={empty.address};start_timeout=4"
            self.refused(params, "PB_ERR_TIMEOUT", "no CPU", environment=empty.entry)


class Conformance(OnRay):
    def test_the_suite_of_all_backends(self):
        suite = programs.conformance()
        arguments = "ray", "--params", f"address={cluster.address}", "--slow", "--separate-memory"
        done = subprocess.run(
            [suite, *arguments], env={**os.environ, "PB_PYTHON": sys.executable, **cluster.entry}, capture_output=True, text=True,
            timeout=120,
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


if __name__ == "__main__":
    unittest.main()
