"""From single measurements to medians, ratios, verdicts, and two tables."""

from statistics import median, quantiles

from . import judge
from .rows import OURS, PEERS, SERIAL, VARIANTS, Goal, Row, takes_part


def summarise(row: Row, values: dict[str, list[float]], cpus: int) -> dict:
    """The row's medians in ns, by peer, and what follows from them; `cpus` is how many the threads can use."""
    medians = {name: median(v) for name, v in values.items() if v}
    others = {name: v for name, v in medians.items() if judge.is_peer(name)}
    serial = medians.get(SERIAL)
    serial_cpus = cpus if row.fill else min(row.serial_cpus, cpus)
    ideal_share = serial_cpus / cpus or None
    return {
        "median_ns": medians,
        "best_peer": min(others, key=others.get, default=None),
        "ideal_ns": serial * ideal_share if serial is not None and ideal_share else None,
        "to_ours": ratios(medians, medians.get(OURS)),
        "lines": {who: line(goal, values, ideal_share, who) for who, goal in {OURS: row.goal, **row.variants}.items()},
    }


def line(goal: Goal, values: dict[str, list[float]], ideal_share: float | None, who: str) -> dict:
    """What the table says of ours, or of a variant: relative to the best peer and to the ideal, and of its goal."""
    to_best, to_serial = judge.to_best(values, who), judge.to_other(values, SERIAL, who)
    return {
        "spread": spread(values.get(who, [])),
        "to_best": median(to_best) if to_best else None,
        "to_best_between": judge.interval(to_best) if to_best else None,
        "of_ideal": ideal_share / median(to_serial) if ideal_share and to_serial else None,
        "goal": goal_text(goal),
        "verdict": judge.verdict(goal, values, ideal_share, who),
    }


def spread(values: list[float]) -> float | None:
    """Half of what the middle half of the values covers, relative to the median."""
    if len(values) < 3:
        return None
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return (high - low) / 2 / middle


def ratios(values: dict[str, float], to: float | None) -> dict[str, float]:
    return {name: value / to for name, value in values.items()} if to else {}


def goal_text(goal: Goal) -> str:
    parts = []
    if goal.at_most_ns is not None:
        parts.append(f"≤ {duration(goal.at_most_ns)}")
    if goal.of_serial is not None:
        parts.append(f"≤ {goal.of_serial:g} × serial")
    if goal.above_ideal_ns is not None:
        parts.append(f"≤ ideal + {duration(goal.above_ideal_ns)}")
    if goal.of_best is not None:
        parts.append("≤ best" if goal.of_best == 1 else f"≤ {goal.of_best:g} × best")
    if goal.of_ideal is not None:
        parts.append(f"≥ {goal.of_ideal:.0%} of ideal")
    if goal.ahead_of:
        parts.append("ahead of " + ", ".join(goal.ahead_of))
    return "; ".join(parts)


def duration(ns: float) -> str:
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if ns >= size / 10:
            return f"{ns / size:g} {unit}"
    return f"{ns:g} ns"


def figure(row: Row, ns: float | None) -> str:
    return "" if ns is None else digits(ns / row.unit_ns)


def digits(value: float) -> str:
    """Three digits that count."""
    if value >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}" if value >= 0.0995 else f"{value:.3f}"


MAIN_LEFT = (0, 1, 6, 10, 11)  # columns of words


def main_table(rows: list[Row], summaries: dict[str, dict]) -> list[list[str]]:
    table = [["row", "unit", "serial", "ours", "±", "best", "peer", "ours/best", "between", "of ideal", "goal", "reached"]]
    for row in rows:
        for who in summaries[row.name]["lines"]:
            title = row.title if who == OURS else f"{row.title}, {VARIANTS[who]}"
            table.append([title, *main_cells(row, summaries[row.name], who)])
    return table


def main_cells(row: Row, s: dict, who: str) -> list[str]:
    own = s["lines"][who]
    return [
        row.unit,
        figure(row, s["median_ns"].get(SERIAL)),
        figure(row, s["median_ns"].get(who)),
        percent(own["spread"]),
        figure(row, s["median_ns"].get(s["best_peer"])),
        s["best_peer"] or "",
        digits(own["to_best"]) if own["to_best"] else "",
        " to ".join(map(digits, own["to_best_between"] or ())),
        percent(own["of_ideal"]),
        own["goal"],
        own["verdict"],
    ]


def percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"


def ratio_table(rows: list[Row], summaries: dict[str, dict], peers: list[str], failed: set) -> list[list[str]]:
    """Time of each peer, where ours is 1."""
    table = [["row", *peers]]
    for row in rows:
        to_ours = summaries[row.name]["to_ours"]
        cells = ["failed" if (row.name, p) in failed else digits(to_ours[p]) if p in to_ours else "" for p in peers]
        table.append([row.name, *cells])
    return table


def plain(table: list[list[str]], left: tuple[int, ...] = (0,)) -> str:
    """Columns to the right, but for those named."""
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    lines = []
    for line in table:
        cells = [c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def markdown(table: list[list[str]]) -> str:
    lines = ["| " + " | ".join(line) + " |" for line in table]
    lines.insert(1, "|" + "---|" * len(table[0]))
    return "\n".join(lines)


def notes(peers: list[str]) -> list[str]:
    return [f"{p.name}: {p.note}" for p in PEERS if p.note and p.name in peers]


def missing(rows: list[Row], peers: list, values: dict) -> set:
    """Pairs of row and peer without any figure."""
    return {(r.name, p.name) for r in rows for p in peers if takes_part(p, r) and not values[r.name].get(p.name)}
