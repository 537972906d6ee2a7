"""What a run measured: samples by test, entrant and repetition; medians, spreads and ratios of them; raw JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

FORMAT = 1
# Above so many cores used by others a sample is disturbed.
DISTURBED_CORES = 0.1


@dataclass(frozen=True)
class Sample:
    """One test of one entrant in one repetition: a value, or None and the reason in `note`. `others` are the cores
    that other processes kept busy meanwhile.
    """

    test: str
    entrant: str
    repetition: int
    value: float | None
    unit: str
    note: str = ""
    others: float = 0.0


@dataclass(frozen=True)
class EntrantInfo:
    """An entrant as the report shows it. `description` is what its runner says of itself."""

    name: str
    peer: str
    source: str
    description: dict[str, Any]


@dataclass
class Results:
    """Everything about one run."""

    machine: dict[str, Any]
    entrants: list[EntrantInfo] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def values(self, test: str, entrant: str) -> dict[int, float]:
        """Repetition → value."""
        return {
            sample.repetition: sample.value
            for sample in self.samples
            if sample.test == test and sample.entrant == entrant and sample.value is not None
        }

    def median(self, test: str, entrant: str) -> float | None:
        """Over the repetitions."""
        values = self.values(test, entrant)
        return median(values.values()) if values else None

    def note(self, test: str, entrant: str) -> str:
        """Why there is no value."""
        notes = [one.note for one in self.samples if one.test == test and one.entrant == entrant and one.note]
        return notes[-1] if notes else ""

    def unit(self, test: str) -> str:
        """Of a test's values."""
        return next((sample.unit for sample in self.samples if sample.test == test), "")

    def ratio(self, upper: tuple[str, str], lower: tuple[str, str]) -> float | None:
        """Median over the repetitions of one (test, entrant) divided by another, repetition by repetition; None
        where none has both.
        """
        above, below = self.values(*upper), self.values(*lower)
        ratios = [above[index] / below[index] for index in above if below.get(index)]
        return median(ratios) if ratios else None

    def of_peer(self, peer: str, source: str | None = None) -> list[str]:
        """Names of a peer's entrants, of one source or all."""
        return [one.name for one in self.entrants if one.peer == peer and source in (None, one.source)]

    def best(self, test: str, names: Sequence[str], larger_is_better: bool = True) -> str | None:
        """The entrant with the best median of a test; None where none has a value."""
        found = {name: value for name in names if (value := self.median(test, name)) is not None}
        if not found:
            return None
        return (max if larger_is_better else min)(found, key=lambda name: found[name])

    @property
    def repetitions(self) -> int:
        """How many were begun."""
        return 1 + max((sample.repetition for sample in self.samples), default=-1)

    def write(self, path: Path) -> None:
        """As JSON."""
        aside = path.with_suffix(".part")
        aside.write_text(json.dumps({"format": FORMAT, **asdict(self)}, indent=1, ensure_ascii=False) + "\n")
        aside.rename(path)


def read_results(path: Path) -> Results:
    """What `write` wrote; raises `ValueError` for another format."""
    data = json.loads(path.read_text())
    if data.pop("format", None) != FORMAT:
        raise ValueError(f"{path} is not of format {FORMAT}: measure again, or use the code that wrote it")
    data["entrants"] = [EntrantInfo(**one) for one in data["entrants"]]
    data["samples"] = [Sample(**one) for one in data["samples"]]
    return Results(**data)


def spread(values: Sequence[float]) -> float:
    """Half the distance from the smallest to the largest value."""
    return (max(values) - min(values)) / 2
