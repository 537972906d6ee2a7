"""What calls of one to many rows cost on this machine: measured once for a bundle and kept beside its tuning."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from statistics import median

from forerun.machine import cache_folder, cpu_model
from forerun.runtime.protocol import SessionLike
from forerun.staging import replaced_file

ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
ROUNDS = 3
# Calls that take more than this many plain ones are the last to be measured: where rows are that dear, as they are on
# machines that compute slowly, all further ones cost alike, and measuring them takes seconds.
STEEP = 3.5
FORMAT = "forerun-costs"
VERSION = 1
# How much of a surprise is taken for a slower machine, and how much for a cost of this number of rows. Much less: where
# calls of one row alone are seen, all that they say about others is that the machine is faster or slower.
_FAST, _SLOW = 0.2, 0.02


@dataclass(frozen=True)
class RowCosts:
    """Milliseconds of a call by its rows, measured at some numbers of rows, ascending from 1. `is_whole`: nowhere was
    there too little room left in the context.
    """

    rows: tuple[int, ...]
    ms: tuple[float, ...]
    is_whole: bool = True


class LiveCosts:
    """Costs kept up with: what calls take moves with the machine's load and with the length of the text, and how much
    more many rows take than one moves with the speed of its memory.
    """

    def __init__(self, measured: RowCosts) -> None:
        self._rows, self._ms = measured.rows, list(measured.ms)
        self._slowness = 1.0
        self._rising = list(accumulate(self._ms, max))

    @property
    def plain_ms(self) -> float:
        """T(1) now."""
        return self._ms[0] * self._slowness

    def marginal(self, rows: int) -> float:
        """What one row more adds to a call of `rows` rows, in units of T(1)."""
        return self.relative(rows + 1) - self.relative(rows)

    def relative(self, rows: int) -> float:
        """T(rows) / T(1), between measured numbers along a line, beyond the last by its slope; never falling."""
        return self._between(rows) / self._ms[0]

    def note(self, rows: int, ms: float) -> None:
        """A call of so many rows took this long."""
        surprise = min(max(ms / (self._between(rows) * self._slowness), 0.5), 2.0)
        self._slowness *= surprise**_FAST
        nearest = min(range(len(self._rows)), key=lambda place: abs(self._rows[place] - rows))
        self._ms[nearest] *= surprise**_SLOW
        self._rising = list(accumulate(self._ms, max))

    def _between(self, rows: int) -> float:
        place = min(max(bisect_left(self._rows, rows), 1), len(self._rows) - 1)
        left, low = self._rows[place - 1], self._rising[place - 1]
        slope = (self._rising[place] - low) / (self._rows[place] - left)
        return low + slope * (rows - left)


def measure_rows(session: SessionLike, sequence: int, token_id: int) -> RowCosts:
    """Time calls on rows staged after what the sequence holds; it is left as it was. Takes some forty calls."""
    most, room = (
        min(session.config.max_rows, session.config.max_gather),
        session.capacity - session.length(sequence),
    )
    sizes = [rows for rows in ROWS if rows <= min(most, room)]
    # The first round warms up, and finds the last size worth measuring.
    first: list[float] = []
    for rows in sizes:
        first.append(_time_call(session, sequence, token_id, rows))
        if first[-1] > STEEP * first[0]:
            break
    del sizes[len(first) :]
    rounds = [[_time_call(session, sequence, token_id, rows) for rows in sizes] for _ in range(ROUNDS)]
    middle = tuple(median(times) for times in zip(*rounds, strict=True))
    return RowCosts(tuple(sizes), middle, min(most, ROWS[-1]) <= room)


def _time_call(session: SessionLike, sequence: int, token_id: int, rows: int) -> float:
    """Milliseconds of a call on so many rows, which are dropped again."""
    staged = session.stage(sequence, [token_id] * rows)
    start = time.perf_counter()
    session.forward([(sequence, row) for row in staged], draws=True)
    elapsed_ms = 1000 * (time.perf_counter() - start)
    session.commit(sequence, ())
    return elapsed_ms


@dataclass(frozen=True)
class KeptCosts:
    """Costs in a file of their own for a bundle, a number of threads and a processor."""

    path: Path

    @staticmethod
    def of(bundle: Path, threads: int) -> KeptCosts:
        """Those of a bundle on this machine; another compile of it has others."""
        manifest = (bundle / "manifest.json").read_bytes()
        key = hashlib.sha256(manifest + f"|{threads}|{cpu_model()}".encode()).hexdigest()[:24]
        return KeptCosts(cache_folder("costs") / f"{key}.json")

    def load(self) -> RowCosts | None:
        """Costs that were kept; None if there are none that can be used, and then they are measured again."""
        try:
            document = json.loads(self.path.read_text(encoding="utf-8"))
            if document["format"] != FORMAT or document["version"] != VERSION:
                return None
            rows, ms = tuple(map(int, document["rows"])), tuple(map(float, document["ms"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        sound = (
            len(rows) == len(ms) >= 2 and rows == tuple(sorted(set(rows))) and rows[0] == 1 and min(ms) > 0
        )
        return RowCosts(rows, ms) if sound else None

    def save(self, costs: RowCosts) -> None:
        """Keep costs for the next time; a folder that cannot be written costs a measurement, nothing else."""
        document = {"format": FORMAT, "version": VERSION, "rows": costs.rows, "ms": costs.ms}
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with replaced_file(self.path) as partial:
                partial.write_text(json.dumps(document), encoding="utf-8")
