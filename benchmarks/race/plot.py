"""results.png: tokens/s against rows per call, and against context. Runs in the plot's own environment."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.race.results import Results, read_results
from benchmarks.race.trials import CONTEXTS, ROWS


def rows_speed(results: Results, rows: int, entrant: str) -> float | None:
    """Rows per second of a call."""
    ms = results.median(f"rows {rows}", entrant)
    return None if ms is None else 1000 * rows / ms


def context_speed(results: Results, context: int, entrant: str) -> float | None:
    """Tokens per second after a context."""
    return results.median(f"context {context}", entrant)


def draw_panel(
    axes: Any,
    results: Results,
    places: Sequence[int],
    speed: Callable[[Results, int, str], float | None],
    label: str,
) -> None:
    """One line for each entrant that has a value; both axes logarithmic, as speeds differ by tens."""
    for number, entrant in enumerate(results.entrants):
        points = [(x, y) for x in places if (y := speed(results, x, entrant.name)) is not None]
        if points:
            width = 2.2 if entrant.peer == "forerun" else 1.2
            style = "-" if entrant.source == "Q4_1" else "--"
            axes.plot(
                *zip(*points, strict=True),
                style,
                marker="o",
                ms=4,
                lw=width,
                c=f"C{number}",
                label=entrant.name,
            )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(places, [f"{x:,}" for x in places])
    axes.set_xlabel(label)
    axes.set_ylabel("tokens/s")
    axes.grid(alpha=0.3, which="both")


def main(source: str, target: str) -> None:
    """Draw the raw results in file `source` to the PNG file `target`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    results = read_results(Path(source))
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 5), layout="constrained")
    draw_panel(left, results, ROWS, rows_speed, "rows per call, after a context of 128")
    draw_panel(right, results, CONTEXTS, context_speed, "context, one row per call")
    handles = {
        label: line
        for axes in (left, right)
        for line, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=5, frameon=False)
    machine = results.machine
    figure.suptitle(
        f"SmolLM2-135M, {machine['cpu']}, {machine['cores']} cores, 2 threads, {machine['date'][:10]}"
    )
    figure.savefig(target, dpi=130)


if __name__ == "__main__":
    main(*sys.argv[1:])
