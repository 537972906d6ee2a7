"""The numbers of a matmul's kernels that change its speed, and on the CPU never its result.

On a device the number of threads that share a column decides in which order its sum is added up. It is one for all
tiles of a matmul and all forms of the head: results agree within a bundle, and may differ in their last bits between
bundles with other numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from forerun.errors import OptionError
from forerun.targets import GpuTarget, Target

# They divide the most rows of a call, so that the last tile ends within the activations.
TILE_ROWS = (1, 2, 4, 8)
DEVICE_TILE_ROWS = (*TILE_ROWS, 16)
MATRIX_ROWS = (0, 16)
FEW_ROWS = 8  # calls of more rows go to the matrix unit, where it is used
MOST_PREFETCH_BYTES = 1 << 20
# Of a device's workgroups; 0 on the CPU. Slabs of large weights are made of 4 blocks each (`gpu/slabs.py`).
BLOCKS = (0, 1, 2, 4)
THREADS = (0, 64, 128, 256)


@dataclass(frozen=True)
class Tiling:
    """How the kernels of one matmul are written.

    Attributes:
        tile_rows: most rows one pass over the weights keeps in registers.
        prefetch_bytes: how far ahead of their use weights are asked for; 0 leaves it to the hardware.
        whole_groups: sizes of tiles whose kernels finish a group of inputs for one row before the next; the others
            meet all rows with half a group's weights at a time.
        matrix_rows: rows of the matrix unit's tiles in calls of more than `FEW_ROWS` rows; 0 = it is not used.
        blocks: blocks of 16 columns that a device's workgroup takes, where what is done with them asks for no more.
        threads: threads of a device's workgroup, which share out the inputs of its columns; 0: it is no device's.
    """

    tile_rows: int
    prefetch_bytes: int
    whole_groups: tuple[int, ...] = ()
    matrix_rows: int = 0
    blocks: int = 0
    threads: int = 0

    def __post_init__(self) -> None:
        rows = DEVICE_TILE_ROWS if self.threads else TILE_ROWS
        listed = {"tile_rows": rows, "matrix_rows": MATRIX_ROWS, "blocks": BLOCKS, "threads": THREADS}
        for name, allowed in listed.items():
            if getattr(self, name) not in allowed:
                raise OptionError(
                    f"{name} is {getattr(self, name)!r}; allowed: {', '.join(map(str, allowed))}"
                )
        if (self.blocks == 0) != (self.threads == 0):
            raise OptionError(
                f"blocks is {self.blocks} and threads {self.threads}; both are 0, or neither is"
            )
        if not 0 <= self.prefetch_bytes <= MOST_PREFETCH_BYTES:
            raise OptionError(f"prefetch_bytes is {self.prefetch_bytes}; allowed: 0 to {MOST_PREFETCH_BYTES}")
        if not set(self.whole_groups) <= set(range(1, self.tile_rows + 1)):
            raise OptionError(
                f"whole_groups is {self.whole_groups}; allowed: sizes of tiles, 1 to {self.tile_rows}"
            )

    @property
    def tiles(self) -> tuple[int, ...]:
        """The sizes of tiles that there are kernels for."""
        return (*range(1, self.tile_rows + 1), *((self.matrix_rows,) if self.matrix_rows else ()))

    def tile_for(self, rows: int) -> int:
        """Return the tile of a call of `rows` rows, as program.c chooses it: equal tiles, as few as can be."""
        if self.matrix_rows and rows > FEW_ROWS:
            return self.matrix_rows
        tiles = -(-rows // self.tile_rows)
        return -(-rows // tiles)

    def described(self) -> dict[str, Any]:
        """Return the numbers as JSON holds them: those of the CPU's kernels or of a device's."""
        if self.threads:
            return {"tile_rows": self.tile_rows, "blocks": self.blocks, "threads": self.threads}
        return {
            "tile_rows": self.tile_rows,
            "prefetch_bytes": self.prefetch_bytes,
            "whole_groups": list(self.whole_groups),
            "matrix_rows": self.matrix_rows,
        }


def default_tiling(target: Target) -> Tiling:
    """Return the numbers that a target gives for matmuls that were not tuned; a matrix unit is left alone."""
    if isinstance(target, GpuTarget):
        return Tiling(target.tile_rows, 0, blocks=target.workgroup_blocks, threads=target.workgroup_threads)
    return Tiling(target.tile_rows, target.prefetch_bytes, target.whole_groups)


def tile_sizes(target: Target, tiling: Tiling) -> tuple[int, ...]:
    """Return the sizes of tiles that a matmul has kernels for: of those that a target lists, what its numbers allow."""
    return tuple(size for size in target.tile_sizes if size <= tiling.tile_rows) or tiling.tiles


def check_tiling(name: str, tiling: Tiling, target: Target) -> None:
    """Raise `OptionError` where a target's kernels of that name cannot have these numbers."""
    if tiling.matrix_rows not in (0, target.matrix_rows):
        raise OptionError(
            f"{name}: matrix_rows is {tiling.matrix_rows}; allowed for {target.name}: 0"
            f"{f' or {target.matrix_rows}' if target.matrix_rows else ''}; run forerun tune again"
        )
    most = target.workgroup_threads if isinstance(target, GpuTarget) else 0
    if (tiling.threads > 0) != (most > 0) or tiling.threads > most:
        allowed = f"1 to {most}" if most else "0"
        raise OptionError(
            f"{name}: threads is {tiling.threads}; allowed for {target.name}: {allowed}; run forerun tune again"
        )
    if most and tiling.tile_rows not in target.tile_sizes:
        raise OptionError(
            f"{name}: tile_rows is {tiling.tile_rows}; allowed for {target.name}:"
            f" {', '.join(map(str, target.tile_sizes))}; run forerun tune again"
        )


def read_tiling(described: Mapping[str, Any]) -> Tiling:
    """Return the tiling that JSON describes.

    Raises:
        OptionError: a number is missing, of another type or out of range.
    """
    if "threads" in described:
        numbers = [described.get(name) for name in ("tile_rows", "blocks", "threads")]
        if not all(type(number) is int for number in numbers):
            raise OptionError(f"{dict(described)!r} is no tiling; it needs tile_rows, blocks and threads")
        tile_rows, blocks, threads = (int(str(number)) for number in numbers)
        return Tiling(tile_rows, 0, blocks=blocks, threads=threads)
    numbers = [described.get(name) for name in ("tile_rows", "prefetch_bytes", "matrix_rows")]
    whole_groups = described.get("whole_groups")
    if not isinstance(whole_groups, list) or not all(type(x) is int for x in (*numbers, *whole_groups)):
        raise OptionError(
            f"{dict(described)!r} is no tiling; it needs tile_rows, prefetch_bytes, whole_groups and matrix_rows"
        )
    tile_rows, prefetch_bytes, matrix_rows = (int(str(number)) for number in numbers)
    return Tiling(tile_rows, prefetch_bytes, tuple(whole_groups), matrix_rows)
