"""From single measurements to medians, ratios, verdicts, and two tables."""

from statistics import median, quantiles

from .rows import OURS, PEERS, SERIAL, VARIANTS, Goal, Row, takes_part


def summarise(row: Row, values: dict[str, list[float]], cpus: int) -> dict:
    """The row's medians in ns, by peer, and what follows from them; `cpus` is how many the threads can use."""
    medians = {name: median(v) for name, v in values.items() if v}
    others = {name: v for name, v in medians.items() if name not in (OURS, SERIAL, *VARIANTS)}
    best = min(others, key=others.get, default=None)
    serial = medians.get(SERIAL)
    serial_cpus = cpus if row.fill else min(row.serial_cpus, cpus)
    ideal = serial * serial_cpus / cpus if serial is not None and serial_cpus else None
    result = {
        "median_ns": medians,
        "best_peer": best,
        "ideal_ns": ideal,
        "to_ours": ratios(medians, medians.get(OURS)),
        "to_best_peer": ratios(medians, others.get(best)),
    }
    result["ours_spread"] = spread(values.get(OURS, []))
    result["goal"] = goal_text(row.goal)
    result["goal_reached"] = reached(row.goal, medians, best, ideal)
    result["variants"] = {
        name: {
            "spread": spread(values.get(name, [])),
            "goal": goal_text(goal),
            "goal_reached": reached(goal, medians, best, ideal, name),
        }
        for name, goal in row.variants.items()
    }
    return result


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


def reached(goal: Goal, medians: dict[str, float], best: str | None, ideal: float | None, who=OURS) -> bool | None:
    """None where something that the goal speaks of was not measured."""
    ours = medians.get(who)
    if ours is None:
        return None
    limits = []
    if goal.at_most_ns is not None:
        limits.append(goal.at_most_ns)
    if goal.of_serial is not None:
        limits.append(scaled(medians.get(SERIAL), goal.of_serial))
    if goal.above_ideal_ns is not None:
        limits.append(None if ideal is None else ideal + goal.above_ideal_ns)
    if goal.of_best is not None:
        limits.append(scaled(medians.get(best), goal.of_best))
    if goal.of_ideal is not None:
        limits.append(scaled(ideal, 1 / goal.of_ideal))
    limits += [medians.get(name) for name in goal.ahead_of]
    return None if None in limits else all(ours <= limit for limit in limits)


def scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


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


MAIN_LEFT = (0, 1, 6, 9, 10)  # columns of words


def main_table(rows: list[Row], summaries: dict[str, dict]) -> list[list[str]]:
    table = [["row", "unit", "serial", "ours", "±", "best", "peer", "ours/best", "of ideal", "goal", "reached"]]
    for row in rows:
        s = summaries[row.name]
        table.append(main_line(row, row.title, s, OURS, s["ours_spread"], s["goal"], s["goal_reached"]))
        for name, own in s["variants"].items():
            title = f"{row.title}, {VARIANTS[name]}"
            table.append(main_line(row, title, s, name, own["spread"], own["goal"], own["goal_reached"]))
    return table


def main_line(row: Row, title: str, s: dict, who: str, spread: float | None, goal: str, reached: bool | None) -> list[str]:
    ours, ideal, best = s["median_ns"].get(who), s["ideal_ns"], s["best_peer"]
    return [
        title,
        row.unit,
        figure(row, s["median_ns"].get(SERIAL)),
        figure(row, ours),
        f"{spread:.0%}" if spread is not None else "",
        figure(row, s["median_ns"].get(best)),
        best or "",
        digits(s["to_best_peer"][who]) if who in s["to_best_peer"] else "",
        f"{ideal / ours:.0%}" if ideal and ours else "",
        goal,
        {True: "yes", False: "no", None: "?"}[reached],
    ]


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
