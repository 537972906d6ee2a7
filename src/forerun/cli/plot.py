"""Speed-ups by category as a picture."""

from pathlib import Path
from typing import TYPE_CHECKING

from forerun.errors import OptionError, OutputError

if TYPE_CHECKING:
    from forerun.cli.measure import Row

ALL = "all"


def plot_speedups(path: Path, title: str, rows: "list[Row]") -> None:
    """Write a PNG with a group of bars for each category and a bar for each drafter.

    Raises `OptionError` where matplotlib is missing, `OutputError` if the file cannot be written.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise OptionError("--plot needs matplotlib; pip install matplotlib, or use --json") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [row for row in rows if row.speedup is not None and row.test.startswith("spec:")]
    categories = list(dict.fromkeys(row.category or ALL for row in shown))
    drafters = list(dict.fromkeys(row.test.removeprefix("spec:") for row in shown))
    figure, axes = pyplot.subplots(figsize=(max(6.0, 1.1 * len(categories) + 2), 4.2))
    width = 0.8 / max(len(drafters), 1)
    for place, drafter in enumerate(drafters):
        own = {row.category or ALL: row.speedup for row in shown if row.test == f"spec:{drafter}"}
        at = [index + (place - (len(drafters) - 1) / 2) * width for index in range(len(categories))]
        axes.bar(at, [own.get(category) or 0.0 for category in categories], width, label=drafter)
    axes.axhline(1.0, color="black", linewidth=0.8)
    axes.set(title=title, ylabel="speed-up over plain decoding")
    axes.set_xticks(range(len(categories)), categories, rotation=30, ha="right")
    axes.legend()
    figure.tight_layout()
    try:
        figure.savefig(path, dpi=110)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error
    finally:
        pyplot.close(figure)
