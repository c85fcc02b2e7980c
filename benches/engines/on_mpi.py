"""The rows of mpi: mpi.py has them."""

from collections.abc import Iterator

import mpi
from measure import Row, Setting


def rows(setting: Setting) -> Iterator[Row]:
    for name, ours, raw, goal in mpi.rows(setting.prefix, setting.rounds):
        yield Row(name, ours, raw, ratio=goal)
