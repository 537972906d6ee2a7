"""Progress of long work on stderr: a bar where a person watches, nothing elsewhere."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Report = Callable[[str, float], None]


@contextmanager
def progress_bar(title: str) -> Iterator[Report]:
    """Gives a function `report(what, fraction)`; fraction runs from 0 to 1."""
    if not sys.stderr.isatty():
        yield lambda what, fraction: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[what]}"),
    )
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task(title, total=1.0, what="")

    def report(what: str, fraction: float) -> None:
        # Work that is done by its first report needs no bar.
        if fraction < 1 and not bar.live.is_started:
            bar.start()
        bar.update(task, completed=fraction, what=what)

    try:
        yield report
    finally:
        bar.stop()
