"""The numbers of a matmul's kernels that change its speed and never its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from forerun.errors import OptionError
from forerun.targets import Target

# They divide the most rows of a call, so that the last tile ends within the activations.
TILE_ROWS = (1, 2, 4, 8)
MOST_PREFETCH_BYTES = 1 << 20


@dataclass(frozen=True)
class Tiling:
    """How the kernels of one matmul are written.

    Attributes:
        tile_rows: most rows one pass over the weights keeps in registers.
        prefetch_bytes: how far ahead of their use weights are asked for; 0 leaves it to the hardware.
        whole_groups: sizes of tiles whose kernels finish a group of inputs for one row before the next; the others
            meet all rows with half a group's weights at a time.
    """

    tile_rows: int
    prefetch_bytes: int
    whole_groups: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.tile_rows not in TILE_ROWS:
            raise OptionError(f"tile_rows is {self.tile_rows!r}; allowed: {', '.join(map(str, TILE_ROWS))}")
        if not 0 <= self.prefetch_bytes <= MOST_PREFETCH_BYTES:
            raise OptionError(f"prefetch_bytes is {self.prefetch_bytes}; allowed: 0 to {MOST_PREFETCH_BYTES}")
        if not set(self.whole_groups) <= set(range(1, self.tile_rows + 1)):
            raise OptionError(
                f"whole_groups is {self.whole_groups}; allowed: sizes of tiles, 1 to {self.tile_rows}"
            )

    def described(self) -> dict[str, Any]:
        """Return the numbers as JSON holds them."""
        return {
            "tile_rows": self.tile_rows,
            "prefetch_bytes": self.prefetch_bytes,
            "whole_groups": list(self.whole_groups),
        }


def default_tiling(target: Target) -> Tiling:
    """Return the numbers that a target gives for matmuls that were not tuned."""
    return Tiling(target.tile_rows, target.prefetch_bytes, target.whole_groups)


def tile_for(rows: int, tile_rows: int) -> int:
    """Return the tile of a call of `rows` rows, as program.c chooses it: equal tiles, as few as can be."""
    tiles = -(-rows // tile_rows)
    return -(-rows // tiles)


def read_tiling(described: Mapping[str, Any]) -> Tiling:
    """Return the tiling that JSON describes.

    Raises:
        OptionError: a number is missing, of another type or out of range.
    """
    tile_rows, prefetch = described.get("tile_rows"), described.get("prefetch_bytes")
    whole_groups = described.get("whole_groups")
    if not isinstance(whole_groups, list) or not all(
        type(x) is int for x in (tile_rows, prefetch, *whole_groups)
    ):
        raise OptionError(
            f"{dict(described)!r} is no tiling; it needs tile_rows, prefetch_bytes and whole_groups"
        )
    return Tiling(int(str(tile_rows)), int(str(prefetch)), tuple(whole_groups))
