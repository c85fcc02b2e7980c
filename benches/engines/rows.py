"""What is measured on an engine: ours and a hand-written client, on one cluster."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from measure import Row, Work, in_turn
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
    for client in (raw, library):
        client.burn(1e-3, 100, 5)
    yield given_chunks(engine, library, raw, chunks, rounds)
    yield many_items(engine, library, raw, rounds)
    yield two_items(engine, library, raw)


def burn(client: Library | RawClient, *what: float) -> Work:
    return Work(functools.partial(client.burn, 0.0, 2, 1), functools.partial(client.burn, *what))


def given_chunks(engine: str, library: Library, raw: RawClient, chunks: Chunks, rounds: int) -> Row:
    what = chunks.seconds, chunks.count, 1
    name = f"{engine}: {chunks.count} chunks of {chunks.seconds * 1e3:g} ms"
    return Row(name, **in_turn(rounds, {"ours": burn(library, *what), "raw": burn(raw, *what)}), ratio=1.10)


def many_items(engine: str, library: Library, raw: RawClient, rounds: int) -> Row:
    works = {size: burn(raw, SHORT, MANY, size) for size in SIZES}
    times = in_turn(rounds, {"ours": burn(library, SHORT, MANY)} | works)
    ours = times.pop("ours")
    best = min(times, key=times.get)
    note = f"best of {', '.join(map(str, SIZES))} items a chunk: {best}"
    return Row(f"{engine}: {MANY:,} items of 0.1 ms, chunks chosen by the library", ours, times[best], 1.10, raw_note=note)


def two_items(engine: str, library: Library, raw: RawClient) -> Row:
    medians = in_turn(ROUNDS_TWO, {"ours": burn(library, 0.0, 2), "raw": burn(raw, 0.0, 2, 1)})
    # Apart from the others: it keeps a pool of its own on the cluster.
    others = in_turn(7, {"joblib": Work(raw.joblib_two, raw.joblib_two)})
    return Row(f"{engine}: a call of 2 trivial items", **medians, more=2e-3, others=others)
