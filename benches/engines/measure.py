"""Rows of the table: ours and the raw client's times, taken in turn, and the goal that they are held to."""

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

SLEEP, SHORT = "s", "ms"


@dataclass
class Row:
    """Medians in seconds. The goal: ours at most `ratio` times raw, or at most raw and `more` seconds."""

    name: str
    ours: float
    raw: float
    ratio: float | None = None
    more: float | None = None
    others: dict[str, float] = field(default_factory=dict)  # further peers
    note: str = ""

    @property
    def reached(self) -> bool:
        return self.ours <= (self.raw * self.ratio if self.ratio else self.raw + self.more)

    def as_dict(self) -> dict:
        return asdict(self) | {"reached": self.reached}


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def in_turn(rounds: int, **works: Callable[[], object]) -> dict[str, float]:
    """The median of each work's times: each runs once to get warm, then all of them in turn, `rounds` times."""
    for work in works.values():
        work()
    times = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            times[name].append(seconds(work))
    return {name: statistics.median(values) for name, values in times.items()}


def best(rounds: int, candidates: dict[int, Callable[[], object]]) -> tuple[int, float]:
    """The candidate with the least median: its name and its time."""
    medians = {name: statistics.median(seconds(work) for _ in range(rounds)) for name, work in candidates.items()}
    name = min(medians, key=medians.get)
    return name, medians[name]
