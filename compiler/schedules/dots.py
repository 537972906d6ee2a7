"""How groups of 32 quantized weights are stored and multiplied: the part of a matmul that differs by ISA.

A dot knows the layout of the weight bytes of one (16 output columns × 32 inputs) block and how to add the
block's products to 16 int32 lanes. Everything around it, scales, tiles and epilogues, is `matmul.py`.
Weights are unsigned here: 4-bit values 0…15, 8-bit values with 128 added.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from tvm import tirx
from tvm.tirx import op

from forerun.compiler import tir
from forerun.compiler.vector_math import GROUP, HALF

Registers: TypeAlias = tirx.Buffer


@dataclass(frozen=True)
class Place:
    """Where one weight of a block lies: byte offset for lane 0, byte stride between lanes, bit shift."""

    offset: int
    lane_stride: int
    shift: int


class VnniDot:
    """vpdpbusd: each 32-bit lane takes four products of unsigned weights and signed activations.

    4-bit blocks are 4 chunks of 64 bytes; byte 4·lane + b of chunk j holds inputs 8j + b (low nibble) and
    8j + 4 + b (high nibble). 8-bit blocks are 8 such chunks with one input a byte.
    """

    name = "vnni"
    quad = 4

    def place(self, k: int, bits: int) -> Place:
        """Return where input k (0…31) of a block lies."""
        quad, b = divmod(k, 4)
        if bits == 8:
            return Place(quad * 64 + b, 4, 0)
        return Place(quad // 2 * 64 + b, 4, 4 * (quad % 2))

    def accumulate(
        self, bits: int, weights: tirx.Buffer, block: tir.Expr, rows: HalfRows, sums: Registers
    ) -> None:
        """Add the products of half a block's inputs to `sums` ([rows, 16] int32)."""
        chunks = HALF * bits // 8 * tir.LANES // 64
        for chunk in range(chunks):
            packed = tir.bind(tir.load(weights, block + (rows.half * chunks + chunk) * 64, 64))
            for part, quads in enumerate(self._unpack(packed, bits)):
                k = (chunk * (8 // bits) + part) * 4
                for m, start in enumerate(rows.starts):
                    four = op.reinterpret("int32", tir.load(rows.values, start + k, 4))
                    product = op.call_llvm_pure_intrin(
                        "int32x16",
                        "llvm.x86.avx512.vpdpbusd.512",
                        tir.load(sums, m * tir.LANES),
                        quads,
                        op.reinterpret("int8x64", tir.splat(four)),
                    )
                    tir.store(sums, product, m * tir.LANES)

    @staticmethod
    def _unpack(packed: tir.Expr, bits: int) -> list[tir.Expr]:
        if bits == 8:
            return [packed]
        mask = tir.splat(tirx.const(15, "uint8"), 64)
        # Bytes have no shift of their own: shift 16-bit lanes and mask away what crossed over.
        words = op.reinterpret("uint16x32", packed)
        shifted = op.shift_right(words, tir.splat(tirx.const(4, "uint16"), 32))
        low = op.bitwise_and(packed, mask)
        high = op.bitwise_and(op.reinterpret("uint8x64", shifted), mask)
        return [tir.bind(low), tir.bind(high)]


class WideningDot:
    """Products in 32-bit integers, one input at a time for 16 columns: any vector unit, or none, can do it.

    8-bit blocks are [32 inputs][16 lanes] bytes; 4-bit blocks [16][16] with input k in the low nibble and
    k + 16 in the high one.
    """

    name = "widening"

    def place(self, k: int, bits: int) -> Place:
        """Return where input k (0…31) of a block lies."""
        if bits == 8:
            return Place(k * tir.LANES, 1, 0)
        return Place(k % 16 * tir.LANES, 1, k // 16 * 4)

    def accumulate(
        self, bits: int, weights: tirx.Buffer, block: tir.Expr, rows: HalfRows, sums: Registers
    ) -> None:
        """Add the products of half a block's inputs to `sums` ([rows, 16] int32)."""
        first = rows.half * HALF if bits == 8 else 0
        with tir.loop(0, HALF) as k:
            packed = tir.bind(tir.load(weights, block + (first + k) * tir.LANES))
            column = tir.bind(tir.cast(self._nibble(packed, bits, rows.half), "int32x16"))
            for m, start in enumerate(rows.starts):
                value = tir.cast(rows.values[start + k], "int32")
                total = tir.load(sums, m * tir.LANES) + column * tir.splat(value)
                tir.store(sums, total, m * tir.LANES)

    @staticmethod
    def _nibble(packed: tir.Expr, bits: int, half: int) -> tir.Expr:
        if bits == 8:
            return packed
        if half == 0:
            return op.bitwise_and(packed, tir.splat(tirx.const(15, "uint8")))
        return op.shift_right(packed, tir.splat(tirx.const(4, "uint8")))


@dataclass(frozen=True)
class HalfRows:
    """The quantized activations of a tile for half a block: the int8 buffer, where each row's 16 values start, and
    which half of the block's inputs they are (0 or 1)."""

    values: tirx.Buffer
    starts: tuple[tir.Expr, ...]
    half: int


Dot = VnniDot | WideningDot


def block_bytes(bits: int) -> int:
    """Return the bytes of one block of 16 columns × 32 inputs."""
    return tir.LANES * GROUP * bits // 8


def pack_blocks(dot: Dot, values: np.ndarray, bits: int) -> np.ndarray:
    """Lay unsigned weights out for a dot.

    Args:
        dot: the layout.
        values: uint8 [N, K], N a multiple of 16, K of 32; 0…15 for 4 bits.
        bits: 4 or 8.

    Returns:
        uint8 [N/16, K/32, block_bytes(bits)].
    """
    columns, inputs = values.shape
    blocks = values.reshape(columns // tir.LANES, tir.LANES, inputs // GROUP, GROUP).transpose(0, 2, 3, 1)
    packed = np.zeros((*blocks.shape[:2], block_bytes(bits)), np.uint8)
    lanes = np.arange(tir.LANES)
    for k in range(GROUP):
        place = dot.place(k, bits)
        packed[:, :, place.offset + lanes * place.lane_stride] |= blocks[:, :, k] << place.shift
    return packed


DOTS: dict[str, Dot] = {dot.name: dot for dot in (VnniDot(), WideningDot())}
