"""What is measured on an engine: ours and a hand-written client, on one cluster."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from measure import Row, in_turn
from ours import Library

MANY, SHORT = 100_000, 1e-4
# Chunks of 25 ms to 1.6 s: which of them is best, nobody knows before.
SIZES = (250, 1000, 4000, 16000)
ROUNDS_TWO = 51


class RawClient(Protocol):
    def burn(self, seconds: float, items: int, batch: int) -> None:
        """Items of `seconds` each, in tasks of `batch` items; checks the results."""

    def joblib_two(self) -> None:
        """Two trivial items by joblib's backend for the engine."""

    def close(self) -> None:
        pass


@dataclass
class Chunks:
    """The row with chunks of a given length: one item is one chunk."""

    count: int
    seconds: float


def rows(engine: str, library: Library, raw: RawClient, chunks: Chunks, rounds: int) -> Iterator[Row]:
    warm_up(library, raw)
    yield given_chunks(engine, library, raw, chunks, rounds)
    yield many_items(engine, library, raw, rounds)
    yield two_items(engine, library, raw)


def warm_up(library: Library, raw: RawClient) -> None:
    for client in (raw, library):
        client.burn(1e-3, 100, 5)


def given_chunks(engine: str, library: Library, raw: RawClient, chunks: Chunks, rounds: int) -> Row:
    works = {
        "ours": functools.partial(library.burn, chunks.seconds, chunks.count, 1),
        "raw": functools.partial(raw.burn, chunks.seconds, chunks.count, 1),
    }
    name = f"{engine}: {chunks.count} chunks of {chunks.seconds * 1e3:g} ms"
    return Row(name, **in_turn(rounds, works), ratio=1.10)


def many_items(engine: str, library: Library, raw: RawClient, rounds: int) -> Row:
    works = {size: functools.partial(raw.burn, SHORT, MANY, size) for size in SIZES}
    times = in_turn(rounds, {"ours": functools.partial(library.burn, SHORT, MANY)} | works)
    ours = times.pop("ours")
    best = min(times, key=times.get)
    note = f"best of {', '.join(map(str, SIZES))} items a chunk: {best}"
    return Row(f"{engine}: {MANY:,} items of 0.1 ms, chunks chosen by the library", ours, times[best], 1.10, raw_note=note)


def two_items(engine: str, library: Library, raw: RawClient) -> Row:
    works = {
        "ours": functools.partial(library.burn, 0.0, 2),
        "raw": functools.partial(raw.burn, 0.0, 2, 1),
    }
    medians = in_turn(ROUNDS_TWO, works)
    # Apart from the others: it keeps a pool of its own on the cluster.
    raw.joblib_two()
    others = {"joblib": in_turn(7, {"joblib": raw.joblib_two})["joblib"]}
    return Row(f"{engine}: a call of 2 trivial items", **medians, more=2e-3, others=others)
