"""How groups of 32 quantized weights are stored: the byte layout of one (16 output columns × 32 inputs) block.

Weights are unsigned here: 4-bit values 0…15, 8-bit values with 128 added. Several dots may read one layout, so that
one weights file serves the targets of all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from forerun.compiler.schemes import Scheme
from forerun.compiler.tir import LANES
from forerun.compiler.vector_math import GROUP, HALF
from forerun.targets import Target


@dataclass(frozen=True)
class Piece:
    """Where some bits of one weight of a block lie.

    Attributes:
        offset: their byte, for lane 0, in the block.
        lane_stride: bytes between lanes.
        shift: how far up in the byte they are.
        bits: how many.
        weight_shift: how far up in the weight they belong.
        array: which of the layout's arrays holds them.
    """

    offset: int
    lane_stride: int
    shift: int
    bits: int
    weight_shift: int = 0
    array: int = 0


class QuadLayout:
    """Four inputs of a column side by side, as instructions want them that add up products of four bytes.

    4-bit blocks are 4 chunks of 64 bytes; byte 4·lane + b of chunk j holds inputs 8j + b (low nibble) and
    8j + 4 + b (high nibble). 8-bit blocks are 8 such chunks with one input a byte.
    """

    name = "quads"

    def arrays(self, bits: int) -> tuple[int, ...]:
        """Return the bytes of a block in each array."""
        return (block_bytes(bits),)

    def pieces(self, k: int, bits: int) -> tuple[Piece, ...]:
        """Return where input k (0…31) of a block lies."""
        quad, b = divmod(k, 4)
        if bits == 8:
            return (Piece(quad * 64 + b, 4, 0, 8),)
        return (Piece(quad // 2 * 64 + b, 4, 4 * (quad % 2), 4),)


class ColumnLayout:
    """One input of 16 columns side by side.

    8-bit blocks are [32 inputs][16 lanes] bytes; 4-bit blocks [16][16] with input k in the low nibble and
    k + 16 in the high one.
    """

    name = "columns"

    def arrays(self, bits: int) -> tuple[int, ...]:
        """Return the bytes of a block in each array."""
        return (block_bytes(bits),)

    def pieces(self, k: int, bits: int) -> tuple[Piece, ...]:
        """Return where input k (0…31) of a block lies."""
        if bits == 8:
            return (Piece(k * LANES, 1, 0, 8),)
        return (Piece(k % 16 * LANES, 1, k // 16 * 4, 4),)


class PlaneLayout:
    """8-bit weights in quads, their upper 6 bits in one array and the lower 2 in another, so that a screen can read
    three quarters of the bytes.

    Half a block is, in the first array, two chunks of 64 bytes of upper nibbles as 4-bit quads have them, then 64
    bytes of bits 2-3; in the second 64 bytes of bits 0-1. Of these byte 4·lane + b holds inputs b, b + 4, b + 8 and
    b + 12 of the half, two bits each from the lowest up. Of weights of 6 bits the first array is all there is.
    """

    name = "planes"

    def arrays(self, bits: int) -> tuple[int, ...]:
        """Return the bytes of a block in each array."""
        upper, lower = block_bytes(6), block_bytes(2)
        return (upper, lower) if bits == 8 else (upper,)

    def pieces(self, k: int, bits: int) -> tuple[Piece, ...]:
        """Return where input k (0…31) of a block lies."""
        assert bits == 8, "only 8-bit weights are split"
        half, i = divmod(k, HALF)
        quad, b = divmod(i, 4)
        upper = half * block_bytes(6) // 2
        return (
            Piece(upper + quad // 2 * 64 + b, 4, 4 * (quad % 2), 4, 4),
            Piece(upper + 128 + b, 4, 2 * quad, 2, 2),
            Piece(half * 64 + b, 4, 2 * quad, 2, 0, array=1),
        )


BlockLayout = QuadLayout | ColumnLayout | PlaneLayout

LAYOUTS: Mapping[str, BlockLayout] = MappingProxyType(
    {layout.name: layout for layout in (QuadLayout(), ColumnLayout(), PlaneLayout())}
)


def table_layout(target: Target, scheme: Scheme) -> BlockLayout:
    """Return the layout of a quantized embedding table, and of the head, which often is the same table."""
    return LAYOUTS["planes" if target.screens_head and scheme.bits == 8 else target.weight_layout]


def weight_arrays(layout: BlockLayout, bits: int) -> dict[str, str]:
    """Return a kernel's parameters for the arrays of a layout: name → dtype."""
    return dict.fromkeys(("weights", "weights_lower")[: len(layout.arrays(bits))], "uint8")


def block_bytes(bits: int) -> int:
    """Return the bytes of one block of 16 columns × 32 inputs."""
    return LANES * GROUP * bits // 8


def pack_blocks(layout: BlockLayout, values: np.ndarray, bits: int, array: int = 0) -> np.ndarray:
    """Lay unsigned weights out for a dot; return one of the layout's arrays.

    Args:
        layout: where each weight goes.
        values: uint8 [N, K], N a multiple of 16, K of 32; 0…15 for 4 bits.
        bits: 4 or 8.
        array: which array of the layout.

    Returns:
        uint8 [N/16, K/32, layout.arrays(bits)[array]].
    """
    columns, inputs = values.shape
    blocks = values.reshape(columns // LANES, LANES, inputs // GROUP, GROUP).transpose(0, 2, 3, 1)
    packed = np.zeros((*blocks.shape[:2], layout.arrays(bits)[array]), np.uint8)
    lanes = np.arange(LANES)
    for k in range(GROUP):
        for piece in layout.pieces(k, bits):
            if piece.array == array:
                part = blocks[:, :, k] >> piece.weight_shift & (1 << piece.bits) - 1
                packed[:, :, piece.offset + lanes * piece.lane_stride] |= part << piece.shift
    return packed
