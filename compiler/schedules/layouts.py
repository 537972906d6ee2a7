"""How groups of 32 quantized weights are stored: the byte layout of one (16 output columns × 32 inputs) block.

Weights are unsigned here: 4-bit values 0…15, 8-bit values with 128 added. Those of 5 and 6 bits are two arrays, one
after the other: their low 4 bits as 4-bit weights are, then their high bits. Several dots may read one layout, so that
one weights file serves the targets of all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from forerun.compiler.tir import LANES
from forerun.compiler.vector_math import GROUP

LOW_BITS = 4  # of weights of 5 and 6 bits, that lie apart from the others
LOW_BYTES = LANES * GROUP * LOW_BITS // 8  # of those of a block


def low_bits(bits: int) -> int:
    """Return how many of a weight's bits lie in the first array."""
    return bits if bits == 8 else LOW_BITS


@dataclass(frozen=True)
class Place:
    """Where some bits of a weight of a block lie: byte offset for lane 0, byte stride between lanes, bit shift there;
    how many they are, and the lowest one's number in the weight.
    """

    offset: int
    lane_stride: int
    shift: int
    bits: int
    first_bit: int = 0


class QuadLayout:
    """Four inputs of a column side by side, as instructions want them that add up products of four bytes.

    Chunks are of 64 bytes, whose byte 4·lane + b belongs to input b of each quad that the chunk holds. 8-bit blocks are
    8 chunks with one quad a byte; 4-bit ones 4 with two, the even quad in the low nibble. High bits are one chunk with
    those of 8 quads in a byte (5 bits), or two with those of 4 (6 bits).
    """

    name = "quads"

    def places(self, k: int, bits: int) -> tuple[Place, ...]:
        """Return where the parts of input k (0…31) of a block lie, the lowest bits first."""
        quad, b = divmod(k, 4)
        low = low_bits(bits)
        chunk, part = divmod(quad, 8 // low)
        places = (Place(chunk * 64 + b, 4, part * low, low),)
        if (high := bits - low) == 0:
            return places
        chunk, part = divmod(quad, 8 // high)
        return (*places, Place(LOW_BYTES + chunk * 64 + b, 4, part * high, high, low))


class ColumnLayout:
    """One input of 16 columns side by side, in rows of 16 bytes.

    8-bit blocks are 32 rows; 4-bit blocks 16 with input k in the low nibble and k + 16 in the high one. High bits are
    4 rows with those of inputs k, k + 4, k + 8 … in a byte (5 bits), or 8 with those of k, k + 8, k + 16 and k + 24.
    """

    name = "columns"

    def places(self, k: int, bits: int) -> tuple[Place, ...]:
        """Return where the parts of input k (0…31) of a block lie, the lowest bits first."""
        low = low_bits(bits)
        part, row = divmod(k, GROUP * low // 8)
        places = (Place(row * LANES, 1, part * low, low),)
        if (high := bits - low) == 0:
            return places
        part, row = divmod(k, GROUP * high // 8)
        return (*places, Place(LOW_BYTES + row * LANES, 1, part * high, high, low))


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
        values: uint8 [N, K], N a multiple of 16, K of 32; below 2^bits.
        bits: 4, 5, 6 or 8.

    Returns:
        uint8 [N/16, K/32, block_bytes(bits)].
    """
    columns, inputs = values.shape
    blocks = values.reshape(columns // LANES, LANES, inputs // GROUP, GROUP).transpose(0, 2, 3, 1)
    packed = np.zeros((*blocks.shape[:2], block_bytes(bits)), np.uint8)
    lanes = np.arange(LANES)
    for k in range(GROUP):
        for place in layout.places(k, bits):
            some = blocks[:, :, k] >> place.first_bit & (1 << place.bits) - 1
            packed[:, :, place.offset + lanes * place.lane_stride] |= some << place.shift
    return packed
