"""The picture: every peer's time relative to ours, row by row."""

from pathlib import Path

from .rows import Row

# Wong's palette, which colour-blind readers can tell apart; peers of one family share a colour and differ in shape.
STYLES = {
    "serial": ("#888888", "|"),
    "ours-phase": ("#B00020", "d"),
    "ours-static": ("#B00020", "s"),
    "libgomp-static": ("#D55E00", "o"),
    "libgomp-dynamic": ("#D55E00", "^"),
    "libgomp-guided": ("#D55E00", "s"),
    "libgomp-active": ("#D55E00", "x"),
    "libomp-static": ("#E69F00", "o"),
    "libomp-dynamic": ("#E69F00", "^"),
    "libomp-active": ("#E69F00", "x"),
    "onetbb": ("#0072B2", "D"),
    "pthreadpool": ("#009E73", "P"),
    "rayon": ("#CC79A7", "o"),
    "chili": ("#56B4E9", "v"),
    "fork-union": ("#000000", "o"),
    "fork-union-dynamic": ("#000000", "^"),
    "std-thread": ("#888888", "*"),
}
LOW, HIGH = 0.2, 100  # beyond, a mark stands at the edge


def draw(rows: list[Row], summaries: dict[str, dict], subtitle: str, folder: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "parallel_backend"  # the same figures give the same file
    from matplotlib import pyplot

    height = 1.6 + 0.36 * len(rows)
    figure, axes = pyplot.subplots(figsize=(11, height), layout="constrained")
    axes.axvspan(LOW, 1, color="#FDECEA", zorder=0)
    axes.axvline(1, color="#B00020", linewidth=2, zorder=1)
    for peer, (colour, marker) in STYLES.items():
        points = [
            (min(max(summaries[row.name]["to_ours"][peer], LOW), HIGH), y)
            for y, row in enumerate(rows)
            if peer in summaries[row.name]["to_ours"]
        ]
        if points:
            axes.scatter(*zip(*points), c=colour, marker=marker, s=34, alpha=0.85, label=peer, zorder=3, clip_on=False)
    axes.set_xscale("log")
    axes.set_xlim(LOW, HIGH)
    ticks = [0.2, 0.5, 1, 2, 5, 10, 20, 50, 100]
    axes.set_xticks(ticks, ["≤ 0.2", "0.5", "1", "2", "5", "10", "20", "50", "≥ 100"], minor=False)
    axes.xaxis.minorticks_off()
    axes.set_yticks(range(len(rows)), [row.title for row in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="both", color="#DDDDDD", linewidth=0.6, zorder=0)
    axes.set_xlabel("time relative to parallel_backend (left of the line: faster than it)")
    axes.set_title(subtitle, fontsize=9, loc="left")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, frameon=False)
    figure.savefig(folder / "plot.png", dpi=150, metadata={"Software": None})
    figure.savefig(folder / "plot.svg", metadata={"Date": None})
    pyplot.close(figure)
