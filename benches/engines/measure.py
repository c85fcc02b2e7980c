"""Rows of the table: our times and those of a hand-written client, taken in turn, and the goal that they are held to."""

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass
class Setting:
    """What is measured, and how often."""

    prefix: Path  # where the library is installed
    kernel: Path  # the shared library of kernel.c
    rounds: int


@dataclass
class Row:
    """Medians in seconds. The goal: ours takes at most `ratio` times raw, or else at most `more` seconds more than raw."""

    name: str
    ours: float
    raw: float
    ratio: float | None = None
    more: float | None = None
    raw_note: str = ""  # what raw was, where it was chosen
    others: dict[str, float] = field(default_factory=dict)  # further peers

    @property
    def reached(self) -> bool:
        return self.ours <= (self.raw + self.more if self.ratio is None else self.raw * self.ratio)

    def as_dict(self) -> dict:
        return asdict(self) | {"reached": self.reached}


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def in_turn(rounds: int, works: dict[str, Callable[[], object]]) -> dict[str, float]:
    """The median of each work's times. All of them run in turn, so that what disturbs the machine disturbs each of them."""
    times = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            times[name].append(seconds(work))
    return {name: statistics.median(values) for name, values in times.items()}
