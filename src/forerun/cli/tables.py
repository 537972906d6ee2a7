"""Tables for people: statistics of one answer, rows of a benchmark, the registries."""

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from forerun.runtime.stats import Stats


def number(value: float | None, digits: int = 1) -> str:
    """A number, or a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def make_table(columns: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int = 1) -> "Table":
    """A table whose first `text_columns` columns are text and the others numbers."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, show_header=any(columns))
    for index, column in enumerate(columns):
        is_text = index < text_columns
        table.add_column(column, justify="left" if is_text else "right", no_wrap=not is_text or index == 0)
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    return table


def print_table(table: "Table", to_stderr: bool = False) -> None:
    """Print a table, as wide as it needs to be where no terminal limits it."""
    from rich.console import Console

    stream = sys.stderr if to_stderr else sys.stdout
    console = Console(file=stream) if stream.isatty() else Console(file=stream, width=160)
    console.print(table)


def print_stats(stats: "Stats", finish_reason: str | None) -> None:
    """Statistics of one answer on stderr."""
    rows = [
        ("prompt", f"{stats.prompt_tokens} tokens, {stats.cached_tokens} from the cache"),
        ("prefill", f"{stats.prefill_ms:.1f} ms, {number(stats.prefill_tokens_per_s)} tokens/s"),
        (
            "generated",
            f"{stats.generated_tokens} tokens ({finish_reason}), {number(stats.tokens_per_s)} tokens/s",
        ),
        ("verify", f"{stats.verify_calls} calls, {stats.verify_ms:.1f} ms"),
        ("draft", f"{stats.draft_ms:.1f} ms"),
        ("accept, commit", f"{stats.commit_ms:.1f} ms"),
    ]
    if stats.drafted:
        pairs = zip(stats.accepted_per_position, stats.drafted_per_position, strict=True)
        rate = 100 * (stats.acceptance_rate or 0.0)
        rows += [
            ("drafted", f"{stats.drafted}, accepted {stats.accepted} ({rate:.1f} %)"),
            ("accepted length", f"{stats.mean_accepted_length:.2f} tokens per call"),
            ("by position", ", ".join(f"{accepted}/{drafted}" for accepted, drafted in pairs)),
        ]
    for origin, counts in stats.origins.items():
        kept = f", {counts.accepted} of {counts.drafted} drafted tokens kept" if counts.drafted else ""
        rows.append(
            (f"by {origin}" if origin != "none" else "nothing drafted", f"{counts.calls} calls{kept}")
        )
    if stats.exits_per_layer:
        exits = ", ".join(f"layer {layer}: {count}" for layer, count in sorted(stats.exits_per_layer.items()))
        rows.append(("exits", exits))
    print_table(make_table(("", ""), rows, text_columns=2), to_stderr=True)
