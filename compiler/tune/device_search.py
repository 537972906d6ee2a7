"""The search on a device: how many threads share a matmul's columns, how many of these, and how many rows at a time."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from forerun.compiler.operations import Linear
from forerun.compiler.schedules.plan import Settings
from forerun.compiler.schedules.tiling import BLOCKS, THREADS, Tiling, default_tiling
from forerun.compiler.tune.device_harness import DeviceHarness
from forerun.compiler.tune.race import Found, Race, Times, fastest
from forerun.compiler.tune.search import ROWS, Matmul
from forerun.targets import GpuTarget


class DeviceSearch:
    """Searches numbers for matmuls on the device that bundles for the target would run on.

    Args:
        settings: target and defaults.
        seconds: how long the search may take.
        progress: called with what is measured and the part of the time used.
    """

    def __init__(self, settings: Settings, seconds: float, progress: Callable[[str, float], None]) -> None:
        assert isinstance(settings.target, GpuTarget)
        self._settings, self._target, self._time = settings, settings.target, Race(seconds, progress)

    def run(self, matmuls: Sequence[Matmul]) -> Iterator[Found]:
        """Yield what was found for each matmul, as far as the time allows.

        Raises:
            CompileError, TargetError, RuntimeFailure: kernels cannot be built, or the device fails.
        """
        yield from self._time.each(matmuls, self._tune)

    def _tune(self, matmul: Matmul) -> Found:
        default = best = default_tiling(self._target)
        threads = [number for number in THREADS if 0 < number <= self._target.workgroup_threads]
        best = self._best(matmul, best, [replace(best, threads=number) for number in threads])
        if isinstance(matmul.node.detail, Linear):  # a gated output has as many blocks as make it up
            best = self._best(matmul, best, [replace(best, blocks=number) for number in BLOCKS if number])
        sizes = [size for size in self._target.tile_sizes if size > 1]
        best = self._best(matmul, best, [replace(best, tile_rows=size) for size in sizes])
        return Found.of(matmul.name, default, best, self._race(matmul, list(dict.fromkeys((default, best)))))

    def _best(self, matmul: Matmul, base: Tiling, others: Sequence[Tiling]) -> Tiling:
        """Return the fastest of the others where it is clearly faster than the base, else the base."""
        others = [other for other in others if other != base]
        return fastest(base, others, self._race(matmul, [base, *others]))

    def _race(self, matmul: Matmul, tilings: Sequence[Tiling]) -> list[Times]:
        """Return the median microseconds of each tiling, measured in turns; they share one program and its memory."""
        self._time.report(matmul.name)
        plans = {tiling: matmul.plan(self._settings, tiling) for tiling in tilings}
        with tempfile.TemporaryDirectory(prefix="forerun-tune-") as folder:
            given = (plans, ROWS, matmul.inputs, matmul.room, self._target, Path(folder))
            with DeviceHarness(*given) as harness:
                points = [(size, 0) for size in ROWS]
                return self._time.times(matmul.name, harness.seconds, tilings, points)
