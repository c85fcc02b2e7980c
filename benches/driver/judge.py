"""Whether a goal is reached. What is compared are figures of one round, taken within a minute or two, so that a slow time of the
machine is on both sides; what counts is the median of these quotients, beside where it may lie by chance.

The best of many peers is also the one that chance has favoured most. So each round is compared with the peer that was best in
the other rounds, which knows nothing of this one's luck (leave-one-out cross-validation).
"""

from math import comb
from statistics import median

from .rows import OURS, SERIAL, VARIANTS, Goal

CONFIDENCE = 0.9
YES, NOISE, NO, UNKNOWN = "yes", "within noise", "no", "?"  # from the best to the worst


def is_peer(name: str) -> bool:
    return name not in (OURS, SERIAL, *VARIANTS)


def to_best(values: dict[str, list[float]], who: str = OURS) -> list[float] | None:
    """In each round, the time of `who` in that of the best peer."""
    ours = values.get(who, [])
    peers = [v for name, v in values.items() if is_peer(name) and len(v) == len(ours) > 0]
    return [value / best_of_others(peers, number)[number] for number, value in enumerate(ours)] if peers and ours else None


def best_of_others(peers: list[list[float]], number: int) -> list[float]:
    """The peer with the lowest median over the other rounds; over all, where there is but one."""

    def others(values: list[float]) -> float:
        return median(values[:number] + values[number + 1 :] or values)

    return min(peers, key=others)


def to_other(values: dict[str, list[float]], other: str, who: str = OURS) -> list[float] | None:
    """In each round, the time of `who` in that of `other`."""
    ours, theirs = values.get(who, []), values.get(other, [])
    return [mine / its for mine, its in zip(ours, theirs)] if len(ours) == len(theirs) > 0 else None


def interval(values: list[float]) -> tuple[float, float] | None:
    """Where the median is, whatever the distribution, with CONFIDENCE: the ranks that the sign test leaves. None for fewer than
    five values."""
    n, ordered = len(values), sorted(values)
    outside = [2 * sum(comb(n, i) for i in range(rank)) / 2**n for rank in range(1, n // 2 + 1)]
    rank = sum(share <= 1 - CONFIDENCE for share in outside)
    return (ordered[rank - 1], ordered[n - rank]) if rank else None


def parts(goal: Goal, values: dict[str, list[float]], ideal_share: float | None, who: str = OURS) -> list[list[float] | None]:
    """For each part of a goal, by rounds: our time in what the goal allows. None where something was not measured.

    `ideal_share` is what the ideal time is of the plain loop's."""
    ours = values.get(who) or None
    serial, best = to_other(values, SERIAL, who), to_best(values, who)
    ideal = scaled(serial, ideal_share and 1 / ideal_share)
    found = []
    if goal.at_most_ns is not None:
        found.append(scaled(ours, 1 / goal.at_most_ns))
    if goal.of_serial is not None:
        found.append(scaled(serial, 1 / goal.of_serial))
    if goal.above_ideal_ns is not None:
        found.append(above(ours, ideal, goal.above_ideal_ns))
    if goal.of_best is not None:
        found.append(scaled(best, 1 / goal.of_best))
    if goal.of_ideal is not None:
        found.append(scaled(ideal, goal.of_ideal))
    return found + [to_other(values, name, who) for name in goal.ahead_of]


def scaled(values: list[float] | None, factor: float | None) -> list[float] | None:
    return [value * factor for value in values] if values and factor else None


def above(ours: list[float] | None, to_ideal: list[float] | None, more_ns: float) -> list[float] | None:
    """Our time in the ideal one and so much more."""
    return [mine / (mine / quotient + more_ns) for mine, quotient in zip(ours, to_ideal)] if ours and to_ideal else None


def verdict(goal: Goal, values: dict[str, list[float]], ideal_share: float | None, who: str = OURS) -> str:
    """YES where every part holds by its median; NOISE where one does not, but its interval has times that would; else NO."""
    verdicts = [UNKNOWN if part is None else of_part(part) for part in parts(goal, values, ideal_share, who)]
    return max(verdicts, key=(YES, NOISE, NO, UNKNOWN).index, default=UNKNOWN)


def of_part(quotients: list[float]) -> str:
    if median(quotients) <= 1:
        return YES
    between = interval(quotients)
    return NOISE if between and between[0] <= 1 else NO
