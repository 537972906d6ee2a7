"""The numbers of a matmul's kernels that change its speed and never its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from forerun.errors import OptionError
from forerun.targets import Target

# They divide the most rows of a call, so that the last tile ends within the activations.
TILE_ROWS = (1, 2, 4, 8)
MATRIX_ROWS = (0, 16)
FEW_ROWS = 8  # calls of more rows go to the matrix unit, where it is used
MOST_PREFETCH_BYTES = 1 << 20


@dataclass(frozen=True)
class Tiling:
    """How the kernels of one matmul are written.

    Attributes:
        tile_rows: most rows one pass over the weights keeps in registers.
        prefetch_bytes: how far ahead of their use weights are asked for; 0 leaves it to the hardware.
        whole_groups: sizes of tiles whose kernels finish a group of inputs for one row before the next; the others
            meet all rows with half a group's weights at a time.
        matrix_rows: rows of the matrix unit's tiles in calls of more than `FEW_ROWS` rows; 0 = it is not used.
    """

    tile_rows: int
    prefetch_bytes: int
    whole_groups: tuple[int, ...] = ()
    matrix_rows: int = 0

    def __post_init__(self) -> None:
        if self.tile_rows not in TILE_ROWS:
            raise OptionError(f"tile_rows is {self.tile_rows!r}; allowed: {', '.join(map(str, TILE_ROWS))}")
        if not 0 <= self.prefetch_bytes <= MOST_PREFETCH_BYTES:
            raise OptionError(f"prefetch_bytes is {self.prefetch_bytes}; allowed: 0 to {MOST_PREFETCH_BYTES}")
        if not set(self.whole_groups) <= set(range(1, self.tile_rows + 1)):
            raise OptionError(
                f"whole_groups is {self.whole_groups}; allowed: sizes of tiles, 1 to {self.tile_rows}"
            )
        if self.matrix_rows not in MATRIX_ROWS:
            raise OptionError(
                f"matrix_rows is {self.matrix_rows!r}; allowed: {', '.join(map(str, MATRIX_ROWS))}"
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
        """Return the numbers as JSON holds them."""
        return {
            "tile_rows": self.tile_rows,
            "prefetch_bytes": self.prefetch_bytes,
            "whole_groups": list(self.whole_groups),
            "matrix_rows": self.matrix_rows,
        }


def default_tiling(target: Target) -> Tiling:
    """Return the numbers that a target gives for matmuls that were not tuned; a matrix unit is left alone."""
    return Tiling(target.tile_rows, target.prefetch_bytes, target.whole_groups)


def read_tiling(described: Mapping[str, Any]) -> Tiling:
    """Return the tiling that JSON describes.

    Raises:
        OptionError: a number is missing, of another type or out of range.
    """
    numbers = [described.get(name) for name in ("tile_rows", "prefetch_bytes", "matrix_rows")]
    whole_groups = described.get("whole_groups")
    if not isinstance(whole_groups, list) or not all(type(x) is int for x in (*numbers, *whole_groups)):
        raise OptionError(
            f"{dict(described)!r} is no tiling; it needs tile_rows, prefetch_bytes, whole_groups and matrix_rows"
        )
    tile_rows, prefetch_bytes, matrix_rows = (int(str(number)) for number in numbers)
    return Tiling(tile_rows, prefetch_bytes, tuple(whole_groups), matrix_rows)
