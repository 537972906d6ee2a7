"""How groups of 32 quantized weights are stored: the byte layout of one (16 output columns × 32 inputs) block.

Weights are unsigned here: 4-bit values 0…15, 8-bit values with 128 added. Several dots may read one layout, so that
one weights file serves the targets of all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from forerun.compiler.tir import LANES
from forerun.compiler.vector_math import GROUP


@dataclass(frozen=True)
class Place:
    """Where one weight of a block lies: byte offset for lane 0, byte stride between lanes, bit shift."""

    offset: int
    lane_stride: int
    shift: int


class QuadLayout:
    """Four inputs of a column side by side, as instructions want them that add up products of four bytes.

    4-bit blocks are 4 chunks of 64 bytes; byte 4·lane + b of chunk j holds inputs 8j + b (low nibble) and
    8j + 4 + b (high nibble). 8-bit blocks are 8 such chunks with one input a byte.
    """

    name = "quads"

    def place(self, k: int, bits: int) -> Place:
        """Return where input k (0…31) of a block lies."""
        quad, b = divmod(k, 4)
        if bits == 8:
            return Place(quad * 64 + b, 4, 0)
        return Place(quad // 2 * 64 + b, 4, 4 * (quad % 2))


class ColumnLayout:
    """One input of 16 columns side by side.

    8-bit blocks are [32 inputs][16 lanes] bytes; 4-bit blocks [16][16] with input k in the low nibble and
    k + 16 in the high one.
    """

    name = "columns"

    def place(self, k: int, bits: int) -> Place:
        """Return where input k (0…31) of a block lies."""
        if bits == 8:
            return Place(k * LANES, 1, 0)
        return Place(k % 16 * LANES, 1, k // 16 * 4)


BlockLayout = QuadLayout | ColumnLayout

LAYOUTS: Mapping[str, BlockLayout] = MappingProxyType(
    {layout.name: layout for layout in (QuadLayout(), ColumnLayout())}
)


def block_bytes(bits: int) -> int:
    """Return the bytes of one block of 16 columns × 32 inputs."""
    return LANES * GROUP * bits // 8


def pack_blocks(layout: BlockLayout, values: np.ndarray, bits: int) -> np.ndarray:
    """Lay unsigned weights out for a dot.

    Args:
        layout: where each weight goes.
        values: uint8 [N, K], N a multiple of 16, K of 32; 0…15 for 4 bits.
        bits: 4 or 8.

    Returns:
        uint8 [N/16, K/32, block_bytes(bits)].
    """
    columns, inputs = values.shape
    blocks = values.reshape(columns // LANES, LANES, inputs // GROUP, GROUP).transpose(0, 2, 3, 1)
    packed = np.zeros((*blocks.shape[:2], block_bytes(bits)), np.uint8)
    lanes = np.arange(LANES)
    for k in range(GROUP):
        place = layout.place(k, bits)
        packed[:, :, place.offset + lanes * place.lane_stride] |= blocks[:, :, k] << place.shift
    return packed
