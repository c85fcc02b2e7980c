"""Rows of the table: our times and those of a hand-written client, taken in turn, and the goal that they are held to."""

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple


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


# Seconds between a warm-up and what is measured. A client lets results go after a call, which is not to be in the way.
PAUSE = 0.05


class Work(NamedTuple):
    """Something to measure, and what goes before without being measured: a call of the same client. Otherwise a cluster that
    has just served another client first has to start workers for this one (Ray: half a second)."""

    warm_up: Callable[[], object]
    run: Callable[[], object]

    def seconds(self) -> float:
        self.warm_up()
        time.sleep(PAUSE)
        begin = time.perf_counter()
        self.run()
        return time.perf_counter() - begin


def in_turn(rounds: int, works: dict[str, Work]) -> dict[str, float]:
    """The median of each work's times. All of them run in turn, so that what disturbs the machine disturbs each of them."""
    times = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            times[name].append(work.seconds())
    return {name: statistics.median(values) for name, values in times.items()}
