#!/usr/bin/env python3
"""The backend mpi beside a farm of tasks that is written by hand in C and MPI: 10,000 chunks of 100 us, same ranks, same work.

    benches/engines/mpi.py [--prefix build/prefix] [--rounds 5]

rows() gives the table's rows. Ours and the other run in turn in every round; a row has the medians.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
FAMILIES = "openmpi", "mpich"
CHUNKS = 10_000
GOAL = 1.10

# As in plugins/mpi/tests: root in a container, more ranks than cores, this machine only.
ENVIRONMENT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMPI_MCA_hwloc_base_binding_policy": "none",
    "OMPI_MCA_plm_ssh_agent": "false",
    "OMPI_MCA_btl_vader_single_copy_mechanism": "none",
    "HYDRA_LAUNCHER": "fork",
    "FI_PROVIDER": "tcp",
    "MPIEXEC_TIMEOUT": "100",
}


class Row(NamedTuple):
    """What was measured; seconds of ours and of the raw engine; the most that ours / raw should be."""

    name: str
    ours: float
    raw: float
    goal: float


def build(prefix: Path, folder: Path) -> None:
    """Compiles the item, our program, and the other for each MPI."""
    common = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra"]
    here = f"-Wl,-rpath,{folder}"
    work = folder / "libbench_work.so"
    library = [f"-L{prefix}/lib", "-lparallel_backend", f"-Wl,-rpath,{prefix}/lib"]
    subprocess.run(["cc", *common, "-fPIC", "-shared", f"-I{prefix}/include", HERE / "mpi_work.c", "-o", work], check=True)
    ours = ["cc", *common, f"-I{prefix}/include", HERE / "mpi_ours.c", "-o", folder / "ours", work, here, *library]
    subprocess.run(ours, check=True)
    for family in FAMILIES:
        farm = [f"mpicc.{family}", *common, HERE / "mpi_farm.c", "-o", folder / f"farm-{family}", work, here]
        subprocess.run(farm, check=True)


def seconds(command: list) -> float:
    environment = os.environ | ENVIRONMENT
    ended = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=120, env=environment)
    return float(ended.stdout.split()[-1])


def rows(prefix: Path = ROOT / "build/prefix", rounds: int = 5) -> list[Row]:
    """A row for each MPI and number of workers."""
    missing = [f"mpicc.{family}" for family in FAMILIES if not shutil.which(f"mpicc.{family}")]
    if missing:
        raise RuntimeError(f"there is no {missing[0]}: run scripts/setup test")
    measured = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build(prefix, folder)
        calibrated = subprocess.run([folder / "ours", "calibrate"], check=True, stdout=subprocess.PIPE, text=True)
        what = [str(CHUNKS), calibrated.stdout.strip()]
        for family in FAMILIES:
            for workers in 1, 2:
                run = [f"mpirun.{family}"]
                worker = prefix / "bin/pb-mpi-worker"
                ours = [*run, "-n", "1", folder / "ours", *what, ":", "-n", str(workers), worker]
                farm = [*run, "-n", str(1 + workers), folder / f"farm-{family}", *what]
                times = [(seconds(ours), seconds(farm)) for _ in range(rounds)]
                medians = [statistics.median(column) for column in zip(*times)]
                title = f"mpi ({family}), {workers} worker{'s' * (workers > 1)}: {CHUNKS:,} chunks of 100 us"
                measured.append(Row(title, *medians, GOAL))
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prefix", type=Path, default=ROOT / "build/prefix", help="where the library is installed")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print("| | ours, s | raw, s | ours / raw | goal |\n|---|---|---|---|---|")
    for row in rows(options.prefix.resolve(), options.rounds):
        ratio = row.ours / row.raw
        print(f"| {row.name} | {row.ours:.3f} | {row.raw:.3f} | {ratio:.2f} | {row.goal:.2f} |")


if __name__ == "__main__":
    main()
