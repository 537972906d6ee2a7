"""Rivals measured in turns until a search's time is over, and what is found by that."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

from forerun.compiler.schedules.tiling import Tiling

ROUNDS, ROUND_SECONDS = 5, 0.008  # how often and how long each point is measured, interleaved with its rivals
CLEARLY = 1.02  # how much faster another number has to be: about what repeated medians differ by

Point = tuple[int, int]  # rows, threads of the CPU; 0 threads: a device's call
Times = Mapping[Point, float]
Matmul = TypeVar("Matmul")


@dataclass(frozen=True)
class Found:
    """What a search found for a matmul: its numbers, and microseconds by rows and threads without and with them."""

    name: str
    tiling: Tiling
    before: Times
    after: Times

    @classmethod
    def of(cls, name: str, default: Tiling, best: Tiling, times: Sequence[Times]) -> Found:
        """Return the best numbers, or the default where they are not clearly faster; `times` are of both or one."""
        before, after = times[0], times[-1]
        if advantage(after, before) < CLEARLY:
            best, after = default, before
        return cls(name, best, before, after)

    def speedup(self) -> float:
        """Return the geometric mean of how much faster its calls are."""
        return advantage(self.after, self.before)


class OutOfTimeError(Exception):
    """The search's time is over."""


class Race:
    """The clock of a search.

    Args:
        seconds: how long the search may take.
        progress: called with what is measured and the part of the time used.
    """

    def __init__(self, seconds: float, progress: Callable[[str, float], None]) -> None:
        self._progress, self._seconds = progress, seconds
        self._started = time.monotonic()

    def report(self, name: str) -> None:
        """Say what is measured; raise `OutOfTimeError` if there is no time for it."""
        part = (time.monotonic() - self._started) / self._seconds
        if part >= 1:
            raise OutOfTimeError
        self._progress(name, part)

    def each(self, matmuls: Sequence[Matmul], tune: Callable[[Matmul], Found]) -> Iterator[Found]:
        """Yield what is found for each matmul, as far as the time allows."""
        for matmul in matmuls:
            try:
                yield tune(matmul)
            except OutOfTimeError:
                return

    def times(
        self,
        name: str,
        seconds: Callable[[Tiling, Point], float],
        tilings: Sequence[Tiling],
        points: Sequence[Point],
    ) -> list[Times]:
        """Return the median microseconds of each tiling at calls of these sizes, measured in turns."""
        samples: list[dict[Point, list[float]]] = [{point: [] for point in points} for _ in tilings]
        for _ in range(ROUNDS):
            self.report(name)
            for tiling, own in zip(tilings, samples, strict=True):
                for point, values in own.items():
                    values.append(1e6 * seconds(tiling, point))
        return [{point: median(values) for point, values in own.items()} for own in samples]


def calls_of(seconds: float) -> int:
    """Return how many calls of so many seconds are measured at a time."""
    return max(2, int(ROUND_SECONDS / seconds))


def fastest(base: Tiling, others: Sequence[Tiling], times: Sequence[Times]) -> Tiling:
    """Return the fastest of the others where it is clearly faster than the base, else the base.

    `times` are the base's, then each of the others'.
    """
    gains = [advantage(own, times[0]) for own in times[1:]]
    return others[gains.index(max(gains))] if gains and max(gains) > CLEARLY else base


def advantage(times: Times, over: Times) -> float:
    """Return by how much calls are faster than others: the geometric mean over rows and threads."""
    return math.exp(sum(math.log(over[point] / times[point]) for point in times) / len(times))
