"""Exact integer dot products of unsigned weights and int8 activations: the part of a matmul that differs by ISA.

A dot loads half a block (16 output columns × 16 inputs) into registers in its own form, then adds the products with
one row's activations to 16 int32 lanes, for as many blocks at a time as share the row. Everything around it,
scales, tiles and epilogues, is `matmul.py`. All dots are exact, so they give the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from tvm import tirx
from tvm.tirx import op

from forerun.compiler import tir
from forerun.compiler.schedules.layouts import BlockLayout, ColumnLayout, PlaneLayout, QuadLayout
from forerun.compiler.vector_math import HALF

QUADS = HALF // 4  # dot products of four bytes in half a block


@dataclass(frozen=True)
class HalfBlock:
    """Half a block in memory: in each array of its layout the weights and the byte at which the block starts; the
    bits of a weight, and which half it is (0 or 1)."""

    layout: BlockLayout
    weights: Sequence[tirx.Buffer]
    starts: Sequence[tir.Expr]
    bits: int
    half: int


# Half a block in registers: whatever vectors, or array, its dot makes of it.
Loaded: TypeAlias = Any


class VnniDot:
    """vpdpbusd on 512-bit registers: each 32-bit lane takes four products of unsigned weights with activations."""

    layout = QuadLayout()

    def load(self, half: HalfBlock) -> Loaded:
        """Return one vector of 64 weights a quad."""
        return _load_quads(half, 0, 64)

    def sums(
        self, loaded: Sequence[Loaded], values: tirx.Buffer, start: tir.Expr, firsts: Sequence[tir.Expr]
    ) -> list[tir.Expr]:
        """Return `firsts` (int32x16, one a block) plus the products with the 16 activations at `start`."""
        sums = list(firsts)
        for quad in range(QUADS):
            four = tir.bind(_broadcast_four(values, start + quad * 4, 64))
            for block, quads in enumerate(loaded):
                sums[block] = tir.bind(
                    op.call_llvm_pure_intrin(
                        "int32x16", "llvm.x86.avx512.vpdpbusd.512", sums[block], quads[quad], four
                    )
                )
        return sums


class NarrowVnniDot:
    """vpdpbusd on 256-bit registers: a block is two of 8 columns."""

    layout = QuadLayout()

    def load(self, half: HalfBlock) -> Loaded:
        """Return one vector of 32 weights a quad for columns 0-7, then the same for 8-15."""
        return [*_load_quads(half, 0, 32), *_load_quads(half, 32, 32)]

    def sums(
        self, loaded: Sequence[Loaded], values: tirx.Buffer, start: tir.Expr, firsts: Sequence[tir.Expr]
    ) -> list[tir.Expr]:
        """Return `firsts` (int32x16, one a block) plus the products with the 16 activations at `start`."""
        zero = tir.splat(tirx.const(0, "int32"), 8)
        sums = [[zero, zero] for _ in loaded]
        for quad in range(QUADS):
            four = tir.bind(_broadcast_four(values, start + quad * 4, 32))
            for quads, pair in zip(loaded, sums, strict=True):
                for side in range(2):
                    pair[side] = tir.bind(
                        op.call_llvm_pure_intrin(
                            "int32x8",
                            "llvm.x86.avx512.vpdpbusd.256",
                            pair[side],
                            quads[side * QUADS + quad],
                            four,
                        )
                    )
        return [tir.bind(first + tir.join(*pair)) for first, pair in zip(firsts, sums, strict=True)]


class MaddDot:
    """vpmaddubsw and vpmaddwd on 256-bit registers, in 4-bit weights, which cannot saturate them.

    vpmaddubsw adds two products in 16 signed bits. With weights of at most 15 and activations of at least -128 a
    pair is within 2 · 15 · 128 = 3,840 and the four quads of a half together within 15,360 < 32,768: so they are
    added up in 16 bits and widened once, by vpmaddwd with ones. Eight bits (pairs up to 65,280) would saturate:
    they are split into two nibbles, whose sums vpmaddwd widens with ones and with sixteens.
    """

    layout = QuadLayout()

    def load(self, half: HalfBlock) -> Loaded:
        """Return vectors of 32 4-bit weights: the quads of columns 0-7, of 8-15, [then both in high nibbles]."""
        quads = [*_load_quads(half, 0, 32), *_load_quads(half, 32, 32)]
        if half.bits == 4:
            return quads
        nibbles = [_nibbles(quad, 32) for quad in quads]
        return [*(low for low, _ in nibbles), *(high for _, high in nibbles)]

    def sums(
        self, loaded: Sequence[Loaded], values: tirx.Buffer, start: tir.Expr, firsts: Sequence[tir.Expr]
    ) -> list[tir.Expr]:
        """Return `firsts` (int32x16, one a block) plus the products with the 16 activations at `start`."""
        words: list[list[tir.Expr]] = [[] for _ in loaded]
        for quad in range(QUADS):
            four = tir.bind(_broadcast_four(values, start + quad * 4, 32))
            for vectors, sums in zip(loaded, words, strict=True):
                products = [
                    op.call_llvm_pure_intrin("int16x16", "llvm.x86.avx2.pmadd.ub.sw", vector, four)
                    for vector in vectors[quad::QUADS]
                ]
                sums[:] = [tir.bind(a + b) for a, b in zip(sums, products, strict=True)] if sums else products
        return [tir.bind(first + _widened(sums)) for first, sums in zip(firsts, words, strict=True)]


class WideningDot:
    """Products in 32-bit integers, one input at a time for 16 columns: any vector unit, or none, can do it.

    Loops stay loops: written out for eight rows they took LLVM minutes.
    """

    layout = ColumnLayout()

    def load(self, half: HalfBlock) -> Loaded:
        """Return an array of 16 columns for each input, widened to 16 bits once for all rows."""
        first = half.half * HALF if half.bits == 8 else 0
        widened = tir.registers(HALF * tir.LANES, "int16")
        with tir.loop(0, HALF) as k:
            packed = tir.bind(tir.load(half.weights[0], half.starts[0] + (first + k) * tir.LANES))
            column = self._nibble(packed, half.bits, half.half)
            tir.store(widened, tir.cast(column, "int16x16"), k * tir.LANES)
        return widened

    def sums(
        self, loaded: Sequence[Loaded], values: tirx.Buffer, start: tir.Expr, firsts: Sequence[tir.Expr]
    ) -> list[tir.Expr]:
        """Return `firsts` (int32x16, one a block) plus the products with the 16 activations at `start`."""
        sums = [tir.registers(tir.LANES, "int32") for _ in firsts]
        for total, first in zip(sums, firsts, strict=True):
            tir.store(total, first, 0)
        with tir.loop(0, HALF) as k:
            value = tir.bind(tir.splat(tir.cast(values[start + k], "int32")))
            for total, columns in zip(sums, loaded, strict=True):
                column = tir.cast(tir.load(columns, k * tir.LANES), "int32x16")
                tir.store(total, tir.load(total, 0) + column * value, 0)
        return [tir.load(total, 0) for total in sums]

    @staticmethod
    def _nibble(packed: tir.Expr, bits: int, half: int) -> tir.Expr:
        if bits == 8:
            return packed
        if half == 0:
            return op.bitwise_and(packed, tir.splat(tirx.const(15, "uint8")))
        return op.shift_right(packed, tir.splat(tirx.const(4, "uint8")))


Dot = VnniDot | NarrowVnniDot | MaddDot | WideningDot


def _load_quads(half: HalfBlock, offset: int, size: int) -> list[tir.Expr]:
    """Return a vector of unsigned bytes for each quad: `size` bytes at `offset` of its chunk of 64."""
    if isinstance(half.layout, PlaneLayout):
        return _load_planes(half, offset, size)
    packed = _chunks(half, 0, offset, size)
    return packed if half.bits == 8 else [part for chunk in packed for part in _nibbles(chunk, size)]


def _load_planes(half: HalfBlock, offset: int, size: int) -> list[tir.Expr]:
    """Return the same from planes; of weights of 6 bits with the lower 2 zero."""
    *nibbles, pairs = _chunks(half, 0, offset, size)
    lower = _chunks(half, 1, offset, size) if half.bits == 8 else []
    quads = []
    for quad in range(QUADS):
        weight = op.bitwise_or(
            _bits(nibbles[quad // 2], 4 - 4 * (quad % 2), 0xF0), _bits(pairs, 2 - 2 * quad, 0x0C)
        )
        for plane in lower:
            weight = op.bitwise_or(weight, _bits(plane, -2 * quad, 0x03))
        quads.append(tir.bind(weight))
    return quads


def _chunks(half: HalfBlock, array: int, offset: int, size: int) -> list[tir.Expr]:
    """Return, of each 64 bytes of half a block in one array, `size` bytes at `offset`."""
    half_bytes = half.layout.arrays(half.bits)[array] // 2
    start = half.starts[array] + half.half * half_bytes + offset
    return [
        tir.bind(tir.load(half.weights[array], start + chunk, size)) for chunk in range(0, half_bytes, 64)
    ]


def _nibbles(packed: tir.Expr, size: int) -> tuple[tir.Expr, tir.Expr]:
    """Return the low and the high nibbles of a vector of bytes."""
    return tir.bind(_bits(packed, 0, 0x0F)), tir.bind(_bits(packed, -4, 0x0F))


def _bits(packed: tir.Expr, left: int, mask: int) -> tir.Expr:
    """Return each byte shifted left (right if negative), then masked."""
    dtype = tir.dtype_of(packed)
    size = int(dtype.removeprefix("uint8x"))
    if left:
        # Bytes have no shift of their own: shift 16-bit lanes and mask away what crossed over.
        words = op.reinterpret(f"uint16x{size // 2}", packed)
        amount = tir.splat(tirx.const(abs(left), "uint16"), size // 2)
        words = op.shift_left(words, amount) if left > 0 else op.shift_right(words, amount)
        packed = op.reinterpret(dtype, words)
    return op.bitwise_and(packed, tir.splat(tirx.const(mask, "uint8"), size))


def _broadcast_four(values: tirx.Buffer, start: tir.Expr, size: int) -> tir.Expr:
    """Return four activations repeated over a vector of `size` bytes."""
    four = op.reinterpret("int32", tir.load(values, start, 4))
    return op.reinterpret(f"int8x{size}", tir.splat(four, size // 4))


def _widened(words: Sequence[tir.Expr]) -> tir.Expr:
    """Add pairs of 16-bit sums up to int32x16: of columns 0-7, of 8-15 [, then the same of high nibbles]."""
    sides = []
    for side in range(2):
        parts = [
            op.call_llvm_pure_intrin(
                "int32x8", "llvm.x86.avx2.pmadd.wd", word, tir.splat(tirx.const(factor, "int16"), 16)
            )
            for word, factor in zip(words[side::2], (1, 16), strict=False)
        ]
        sides.append(parts[0] if len(parts) == 1 else parts[0] + parts[1])
    return tir.join(*sides)
