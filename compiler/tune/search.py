"""The search: a few numbers of each matmul, one after the other, each changed only where that is clearly faster."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from forerun.compiler import export_reader
from forerun.compiler.graph import Node
from forerun.compiler.operations import Linear, LinearSwiGlu
from forerun.compiler.pipeline import KV_DTYPES, MAX_ROWS, fused_modules
from forerun.compiler.schedules import schedule
from forerun.compiler.schedules.matmul_rules import stacked_rows
from forerun.compiler.schedules.plan import Packed, Plan, Settings
from forerun.compiler.schedules.tiling import FEW_ROWS, Tiling, default_tiling
from forerun.compiler.tune.harness import Harness, Memory, working_set
from forerun.compiler.tune.race import CLEARLY, Found, Point, Race, Times, advantage, calls_of, fastest
from forerun.targets import Target

ROWS = (1, 4, 8, 16, 64)
PREFETCH_BYTES = (4096, 8192, 16384)
TILE_ROWS = (4, 8)


@dataclass(frozen=True)
class Matmul:
    """One distinct matmul of an export: the name that its numbers are kept by, and a node with its kernels."""

    name: str
    function: str
    node: Node

    @property
    def inputs(self) -> int:
        """Numbers that a column is multiplied with."""
        return stacked_rows(self._detail)[0].inputs

    @property
    def room(self) -> int:
        """Bytes that are room enough for any of its parameters but the weights, in calls of all `ROWS`."""
        rows = stacked_rows(self._detail)
        # Of matrices that share an output each writes its own columns of the wider rows.
        stride = getattr(self._detail, "stride", 0)
        return 4 * max(self.inputs, stride, sum(each.columns for each in rows)) * (max(ROWS) + 1)

    @property
    def _detail(self) -> Linear | LinearSwiGlu:
        assert isinstance(self.node.detail, Linear | LinearSwiGlu)
        return self.node.detail

    def plan(self, settings: Settings, tiling: Tiling) -> Plan:
        """Return the plan of its real kernels with these numbers."""
        return schedule(self.function, self.node, replace(settings, tuned={self.name: tiling})).plan


def find_matmuls(directory: Path, settings: Settings) -> list[Matmul]:
    """Return the distinct quantized matmuls of an export whose kernels take tiles of rows."""
    found: dict[str, Matmul] = {}
    for function, graph in fused_modules(export_reader.open_export(directory)).items():
        for node in graph.nodes:
            if (
                not isinstance(node.detail, Linear | LinearSwiGlu)
                or not stacked_rows(node.detail)[0].scheme.quantized
            ):
                continue
            plan = schedule(function, node, settings).plan
            if 0 not in plan.kernels:
                # A device's head has the same numbers in all its forms: measured are the maxima, which come last and
                # which nearly all calls compute.
                found[plan.numbers_name] = Matmul(plan.numbers_name, function, node)
    return list(found.values())


def tuning_settings(target: Target) -> Settings:
    """Return the settings that matmuls are built with; the cache's element does not concern them."""
    return Settings(target, KV_DTYPES["f16"][0], MAX_ROWS)


class Search:
    """Searches numbers for matmuls on this machine.

    Args:
        settings: target and defaults.
        threads: the largest team; one thread is measured as well.
        seconds: how long the search may take.
        progress: called with what is measured and the part of the time used.
    """

    def __init__(
        self, settings: Settings, threads: int, seconds: float, progress: Callable[[str, float], None]
    ) -> None:
        self._settings, self._time = settings, Race(seconds, progress)
        self._teams = tuple(dict.fromkeys((1, threads)))
        self._memory = Memory(working_set())

    def run(self, matmuls: Sequence[Matmul]) -> Iterator[Found]:
        """Yield what was found for each matmul, as far as the time allows."""
        yield from self._time.each(matmuls, self._tune)

    def _room_for(self, size: int) -> Memory:
        """Return the memory for weights, a larger one from now on where one matmul's do not fit."""
        if size > self._memory.size:
            self._memory = Memory(size)
        return self._memory

    def _tune(self, matmul: Matmul) -> Found:
        default = default_tiling(self._settings.target)
        with tempfile.TemporaryDirectory(prefix="forerun-tune-") as folder:
            rivals = _Rivals(matmul, self._settings, Path(folder), self._room_for)
            best = self._order(rivals, default)
            choices = [replace(best, prefetch_bytes=size) for size in PREFETCH_BYTES]
            best = self._best(rivals, best, choices)
            sizes = [replace(_cut(best, size), tile_rows=size) for size in TILE_ROWS]
            best = self._best(rivals, best, sizes)
            if self._settings.target.matrix_rows:
                best = self._with_matrix_unit(rivals, best)
            times = self._race(rivals, list(dict.fromkeys((default, best))))
        return Found.of(matmul.name, default, best, times)

    def _order(self, rivals: _Rivals, base: Tiling) -> Tiling:
        """Choose for each size of tile whether groups are finished row by row; sizes not measured follow the next."""
        every = replace(base, whole_groups=tuple(range(1, base.tile_rows + 1)))
        none = replace(base, whole_groups=())
        whole, halves = self._race(rivals, [every, none])
        chosen: list[int] = []
        smallest = 1
        for tile in _tiles(base):
            points = [point for point in whole if base.tile_for(point[0]) == tile]
            gain = advantage({p: whole[p] for p in points}, {p: halves[p] for p in points})
            wanted = gain > (1 / CLEARLY if tile in base.whole_groups else CLEARLY)
            chosen += range(smallest, tile + 1) if wanted else ()
            smallest = tile + 1
        return replace(base, whole_groups=tuple(chosen))

    def _best(self, rivals: _Rivals, base: Tiling, others: Sequence[Tiling]) -> Tiling:
        """Return the fastest of the others where it is clearly faster than the base, else the base."""
        others = [other for other in others if other != base]
        return fastest(base, others, self._race(rivals, [base, *others]))

    def _with_matrix_unit(self, rivals: _Rivals, base: Tiling) -> Tiling:
        """Return the tiling with the matrix unit where that is clearly faster in the calls that would use it."""
        using = replace(base, matrix_rows=self._settings.target.matrix_rows)
        many = [rows for rows in ROWS if rows > FEW_ROWS]
        without, with_it = self._race(rivals, [base, using], many)
        return using if advantage(with_it, without) > CLEARLY else base

    def _race(self, rivals: _Rivals, tilings: Sequence[Tiling], sizes: Sequence[int] = ROWS) -> list[Times]:
        """Return the median microseconds of each tiling at calls of these sizes, measured in turns."""
        points = [(rows, threads) for rows in sizes for threads in self._teams]
        for tiling in tilings:
            self._time.report(rivals.name)
            rivals.build(tiling)
        return self._time.times(rivals.name, rivals.seconds, tilings, points)


class _Rivals:
    """The candidates of one matmul, each a library of the kernels that the measured calls use."""

    def __init__(
        self, matmul: Matmul, settings: Settings, folder: Path, room_for: Callable[[int], Memory]
    ) -> None:
        self.name = matmul.name
        self._matmul, self._settings, self._folder, self._room_for = matmul, settings, folder, room_for
        self._built: dict[Tiling, Harness] = {}
        self._calls: dict[Point, int] = {}

    def build(self, tiling: Tiling) -> None:
        """Build the kernels of a candidate, once."""
        if tiling in self._built:
            return
        folder = self._folder / str(len(self._built))
        folder.mkdir()
        plan = self._matmul.plan(self._settings, tiling)
        kernels = [plan.kernels[tile] for tile in _tiles(tiling)]
        weights = {
            parameter.name: plan.weights[argument.index].bytes(self._matmul.inputs)
            for argument, parameter in zip(plan.arguments, kernels[0].parameters, strict=True)
            if isinstance(argument, Packed)
        }
        self._built[tiling] = Harness(
            kernels, self._settings.target, folder, weights, self._matmul.room, self._room_for
        )

    def seconds(self, tiling: Tiling, point: Point) -> float:
        """Return the seconds of a call of some rows by some threads."""
        rows, threads = point
        harness = self._built[tiling]
        name = f"{self.name}_rows{tiling.tile_for(rows)}"
        if point not in self._calls:
            self._calls[point] = calls_of(harness.seconds(name, rows, threads, 2))
        return harness.seconds(name, rows, threads, self._calls[point])


def _tiles(tiling: Tiling) -> list[int]:
    """Return the sizes of tiles that the measured calls use, smallest first."""
    return sorted({tiling.tile_for(rows) for rows in ROWS})


def _cut(tiling: Tiling, tile_rows: int) -> Tiling:
    """Return the tiling without what concerns larger tiles."""
    return replace(tiling, whole_groups=tuple(size for size in tiling.whole_groups if size <= tile_rows))
