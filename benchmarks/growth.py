"""How the time of a token grows with what it has to read: model sizes and context lengths in one run.

`make growth`, or `python -m benchmarks.growth --help`. A token's time is that of a call of one row whose token is
drawn. It is set against bytes / read bandwidth, measured beside it with the same threads over as many bytes;
points take turns, and what is reported are medians over the repetitions. Weights are random: they cost what real
ones of that shape do.
"""

from __future__ import annotations

import argparse
import datetime
import os
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.random_models import SHAPES, bundle_folder, make_bundle
from forerun.cli.profile import CALLS, Point, add_repetition, fill, open_point, weights_size
from forerun.runtime.session import LoadedProgram, Session

SIZE_CONTEXT = 128  # at which models are compared
CONTEXTS = (128, 512, 2048, 8192)
BAR = 0.15  # from bytes / bandwidth growth


@dataclass(frozen=True)
class Measured:
    """One point. `ratio` is ms / (bytes / bandwidth), taken in each repetition and then the median; `low` and
    `high` are the repetitions' extremes.
    """

    model: str
    context: int
    bytes: int
    ms: float
    gb_per_s: float
    ratio: float
    low: float
    high: float

    @property
    def floor_ms(self) -> float:
        """What reading alone would take."""
        return self.bytes / self.gb_per_s / 1e6


@dataclass(frozen=True)
class Place:
    """A point and where it is measured."""

    model: str
    session: Session
    sequence: int
    point: Point
    weights_bytes: int


def open_places(
    stack: ExitStack, bundle: Path, model: str, contexts: Sequence[int], threads: int | None
) -> list[Place]:
    """Open a bundle and fill a sequence for each context, the longer ones from forks of the shorter."""
    program = stack.enter_context(LoadedProgram(bundle))
    capacity = max(contexts) + 16
    session = stack.enter_context(
        Session(program, sequences=len(contexts), capacity=capacity, threads=threads)
    )
    places: list[Place] = []
    for context in sorted(contexts):
        sequence = session.fork(places[-1].sequence) if places else session.create_sequence()
        fill(session, sequence, context)
        point = open_point(session, sequence, 1)
        places.append(Place(model, session, sequence, point, weights_size(program)))
    return places


def measure(places: Sequence[Place], repetitions: int) -> list[Measured]:
    """Measure all points in turn, again and again."""
    for _ in range(repetitions):
        for place in places:
            add_repetition(place.session, place.sequence, place.point, place.weights_bytes)
    return [summarize(place.model, place.point) for place in places]


def summarize(model: str, point: Point) -> Measured:
    """Medians over the repetitions of one point."""
    size = int(point.bytes.sum())
    repetitions = [
        statistics.median(point.plain_ms[first : first + CALLS])
        for first in range(0, len(point.plain_ms), CALLS)
    ]
    ratios = [
        ms / (size / gb_per_s / 1e6) for ms, gb_per_s in zip(repetitions, point.read_gb_per_s, strict=True)
    ]
    return Measured(
        model=model,
        context=point.context,
        bytes=size,
        ms=statistics.median(repetitions),
        gb_per_s=statistics.median(point.read_gb_per_s),
        ratio=statistics.median(ratios),
        low=min(ratios),
        high=max(ratios),
    )


def distance(rows: Sequence[Measured]) -> float:
    """How far the growth of ms is from that of bytes / bandwidth, seen from the first row: 0.1 is 10 %."""
    return max(abs(row.ratio / rows[0].ratio - 1) for row in rows)


def report(by_size: Sequence[Measured], by_context: Sequence[Measured], facts: Sequence[str]) -> str:
    """The text of GROWTH.md."""
    parts = ["# How the time of a token grows\n", *facts, ""]
    for title, rows in (("model size", by_size), ("context", by_context)):
        off = distance(rows)
        verdict = "within" if off <= BAR else "outside"
        parts += [
            f"## With the {title}\n",
            "| model | context | MB read | ms | read bandwidth GB/s | bytes / bandwidth, ms | ms over it | range |",
            "|---|---|---|---|---|---|---|---|",
            *(cells(row) for row in rows),
            "",
            f"Growth is at most {100 * off:.0f} % from that of bytes / bandwidth: {verdict} the bar of"
            f" {100 * BAR:.0f} %.",
            "",
        ]
    return "\n".join(parts)


def cells(row: Measured) -> str:
    """A row of the table."""
    return (
        f"| {row.model} | {row.context} | {row.bytes / 1e6:.1f} | {row.ms:.2f} | {row.gb_per_s:.1f} |"
        f" {row.floor_ms:.2f} | {row.ratio:.2f} | {row.low:.2f}–{row.high:.2f} |"
    )


def machine() -> str:
    """The processor's name and how many of them this process may use."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else 'unknown processor'}, {len(os.sched_getaffinity(0))} processors"


def draw_plot(by_size: Sequence[Measured], by_context: Sequence[Measured], path: Path) -> bool:
    """Plot ms against bytes / bandwidth on logarithmic axes; False where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return False
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.add_subplot(xscale="log", yscale="log")
    for label, rows, mark in (("model size", by_size, "o-"), ("context", by_context, "s-")):
        axes.plot([row.floor_ms for row in rows], [row.ms for row in rows], mark, label=label)
    ends = [min(row.floor_ms for row in by_size), max(row.floor_ms for row in by_size)]
    axes.plot(ends, ends, "--", color="gray", label="bytes / read bandwidth")
    axes.set(xlabel="bytes / read bandwidth (ms)", ylabel="a token (ms)", title="Growth of a token's time")
    axes.legend()
    figure.savefig(path, dpi=150)
    return True


def main() -> None:
    """Make the bundles, measure, write GROWTH.md and growth.png."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--bundles", type=Path, default=Path("build/growth"), help="where bundles are kept")
    parser.add_argument("--output", type=Path, default=Path("benchmarks"), help="folder of GROWTH.md")
    parser.add_argument("--threads", type=int, help="threads (default: physical cores)")
    parser.add_argument("--repetitions", type=int, default=5, help="times each point is measured (default 5)")
    parser.add_argument("--reuse", action="store_true", help="take the bundles that are there as they are")
    arguments = parser.parse_args()
    make = bundle_folder if arguments.reuse else make_bundle
    bundles = {shape.name: make(shape, arguments.bundles) for shape in SHAPES}
    first = SHAPES[0].name
    with ExitStack() as stack:
        places = []
        for name, bundle in bundles.items():
            contexts = CONTEXTS if name == first else (SIZE_CONTEXT,)
            places += open_places(stack, bundle, name, contexts, arguments.threads)
        threads = places[0].session.threads
        rows = measure(places, arguments.repetitions)
    by_size = [row for row in rows if row.context == SIZE_CONTEXT]
    by_context = [row for row in rows if row.model == first]
    facts = (
        f"{datetime.date.today()}, {machine()}, {threads} threads, random weights, 4-bit layers, 8-bit head,"
        f" {arguments.repetitions} repetitions of {CALLS} calls, points in turn. Range: the repetitions' extremes.",
        "",
        "`make growth`",
    )
    text = report(by_size, by_context, facts)
    (arguments.output / "GROWTH.md").write_text(text, encoding="utf-8")
    print(text)
    if not draw_plot(by_size, by_context, arguments.output / "growth.png"):
        print("matplotlib is not installed: no growth.png")


if __name__ == "__main__":
    main()
