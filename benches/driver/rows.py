"""What is measured, and with what: the rows of the table, their goals, and the peers."""

from dataclasses import dataclass, field

OURS = "ours"
OURS_PHASE = "ours-phase"
OURS_STATIC = "ours-static"
# Ours in other circumstances: none of these is a peer.
VARIANTS = {OURS_PHASE: "in a phase", OURS_STATIC: "linked statically"}
SERIAL = "serial"

US = 1e3  # in ns
MS = 1e6


@dataclass(frozen=True)
class Goal:
    """What ours should reach in a row. Everything that is given must hold."""

    at_most_ns: float | None = None
    of_best: float | None = None  # at most so many times the best peer's time
    of_ideal: float | None = None  # at least this fraction of the ideal speed
    of_serial: float | None = None  # at most so many times the plain loop's time
    above_ideal_ns: float | None = None  # at most so much more than the ideal time
    ahead_of: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    name: str  # also the harness's name, unless `kernel` differs
    title: str
    unit: str  # what figures are shown in
    unit_ns: float
    goal: Goal
    kernel: str = ""
    # CPUs that the plain loop can use here. The ideal time is the plain loop's, spread over all threads; 0: no ideal.
    serial_cpus: int = 1
    launches: int = 1  # processes in one round
    seconds: float = 0.1  # that one process measures for
    env: dict[str, str] = field(default_factory=dict)
    latency: bool = False  # the peers that differ in how they wait take part
    recursive: bool = False  # a fork-join recursion: only the peers that have such a thing take part
    fill: bool = False  # the plain loop runs in as many processes as there are CPUs
    variants: dict[str, Goal] = field(default_factory=dict)  # of ours that have a line of their own, with their goals


EVEN = Goal(of_best=1, of_ideal=0.97)
LOAD = Goal(of_best=1.02)

ROWS = (
    Row("empty", "empty tasks, one a thread, back to back", "µs", US, Goal(at_most_ns=200),
        serial_cpus=0, latency=True),
    Row("tasks-1us", "tasks of 1 µs, one a thread, back to back", "µs", US, Goal(of_serial=1.05, of_best=1),
        serial_cpus=0, latency=True),
    Row("gap-100us", "tasks of 100 µs, one a thread, calls 100 µs apart", "µs", US, Goal(of_best=1), latency=True),
    Row("gap-2ms", "tasks of 100 µs, one a thread, calls 2 ms apart", "µs", US,
        Goal(above_ideal_ns=30e3, ahead_of=("onetbb", "rayon", "chili")), latency=True, variants={OURS_PHASE: Goal(of_best=1)}),
    Row("saxpy", "saxpy, 1 M items, one call an item", "ns/item", 1e6, Goal(of_best=0.9),
        variants={OURS_STATIC: Goal(of_best=0.9)}),
    Row("items-100ns", "100 k items of 100 ns", "ms", MS, EVEN),
    Row("items-1us", "1,000 items of 1 µs", "ms", MS, EVEN),
    Row("items-10us", "64 items of 10 µs", "ms", MS, EVEN),
    Row("triangle", "triangle: 2,000 items of 0 to 10 µs, rising", "ms", MS, EVEN),
    Row("heavy-1pct", "1 % heavy: 2,000 items, 2 or 200 µs", "ms", MS, EVEN),
    Row("heavy-tail", "last 3 % heavy: 2,000 items, 2 or 200 µs", "ms", MS, EVEN),
    Row("nested", "nested: 16 items of 1,000 items of 1 µs", "ms", MS, Goal(of_best=1)),
    Row("nested-short", "nested: 1,000 items of 4 items of 1 µs", "ms", MS, Goal(of_ideal=0.9)),
    Row("callers-4", "4 callers at once, each 100 items of 1 µs", "µs", US, Goal(of_ideal=0.9), serial_cpus=4),
    Row("callers-16", "16 callers at once, each 100 items of 1 µs", "µs", US, Goal(of_ideal=0.9), serial_cpus=16),
    Row("processes-2", "2 processes at once, each 100 items of 1 µs", "µs", US, Goal(of_ideal=0.9), fill=True),
    Row("processes-4", "4 processes at once, each 100 items of 1 µs", "µs", US, Goal(of_ideal=0.9), fill=True),
    Row("cpu-after", "CPU time in the 500 ms after a call", "ms", MS, Goal(at_most_ns=0.3e6),
        serial_cpus=0, latency=True),
    Row("first-call", "first call, the pool's start included", "µs", US, Goal(at_most_ns=300e3),
        serial_cpus=0, launches=3),
    Row("mandelbrot", "mandelbrot, 270 rows", "ms", MS, LOAD),
    Row("spmv", "sparse matrix × vector, 50 k power-law rows", "ms", MS, LOAD),
    Row("dgemm", "64 products of 128 × 128 by OpenBLAS as it comes", "ms", MS, LOAD, serial_cpus=0),
    Row("dgemm-1", "the same with OPENBLAS_NUM_THREADS=1", "ms", MS, LOAD,
        kernel="dgemm", env={"OPENBLAS_NUM_THREADS": "1"}),
    Row("monte-carlo", "4,000 random walks that end at a barrier", "ms", MS, LOAD),
    Row("merge-sort", "merge sort of 500 k numbers, forked down to 64", "ms", MS, LOAD, recursive=True),
)


@dataclass(frozen=True)
class Peer:
    name: str
    program: str = ""  # bench-NAME, unless another
    env: dict[str, str] = field(default_factory=dict)
    latency_only: bool = False
    not_in: tuple[str, ...] = ()  # rows that it has no part in
    only_in: tuple[str, ...] = ()  # where not empty: the rows that it has a part in
    recursive: bool = False  # has a fork-join call for recursions
    note: str = ""


ACTIVE = {"OMP_WAIT_POLICY": "active"}

PEERS = (
    Peer(SERIAL, recursive=True, note="a plain loop"),
    Peer(OURS, recursive=True, note="parallel_backend, threading; pb_join in merge-sort"),
    Peer(OURS_PHASE, program=OURS, env={"BENCH_OURS": "phase"}, latency_only=True, not_in=("cpu-after",),
         note="ours between pb_phase_begin and pb_phase_end"),
    Peer(OURS_STATIC, only_in=("empty", "saxpy", "items-100ns"),
         note="ours from the static library, so that the loop over items lies near the task"),
    Peer("libgomp-static"),
    Peer("libgomp-dynamic", recursive=True, note="tasks in merge-sort"),
    Peer("libgomp-guided"),
    Peer("libgomp-active", program="libgomp-static", env=ACTIVE, latency_only=True,
         note="libgomp-static with OMP_WAIT_POLICY=active"),
    Peer("libomp-static"),
    Peer("libomp-dynamic", recursive=True, note="tasks in merge-sort"),
    Peer("libomp-active", program="libomp-static", env=ACTIVE, latency_only=True,
         note="libomp-static with OMP_WAIT_POLICY=active"),
    Peer("onetbb", recursive=True, note="parallel_for, auto_partitioner; parallel_invoke in merge-sort"),
    Peer("pthreadpool", note="nested loops are plain: it has none"),
    Peer("rayon", recursive=True, note="into_par_iter on its global pool; join in merge-sort"),
    Peer("chili", recursive=True, note="join, down to leaves of 1 to 1,024 items"),
    Peer("fork-union", note="for_n; nested loops are plain, and callers take turns: it has neither"),
    Peer("fork-union-dynamic", program="fork-union", env={"BENCH_FORK_UNION": "dynamic"}, note="for_n_dynamic"),
    Peer("std-thread", note="new threads in every call"),
)


def takes_part(peer: Peer, row: Row) -> bool:
    fits = (row.latency or not peer.latency_only) and (peer.recursive or not row.recursive)
    return fits and row.name not in peer.not_in and (not peer.only_in or row.name in peer.only_in)
