"""Exact integer dot products of unsigned weights and int8 activations: the part of a matmul that differs by ISA.

A dot loads half a block (16 output columns × 16 inputs) into registers in its own form, then adds the products with
one row's activations to 16 int32 lanes. Everything around it,
scales, tiles and epilogues, is `matmul.py`. All dots are exact, so they give the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol, TypeAlias

from tvm import tirx
from tvm.tirx import op

from forerun.compiler import tir
from forerun.compiler.schedules.layouts import BlockLayout, ColumnLayout, Place, QuadLayout, low_bits
from forerun.compiler.vector_math import HALF

QUADS = HALF // 4  # dot products of four bytes in half a block


@dataclass(frozen=True)
class HalfBlock:
    """Half a block in memory: the weights, the byte at which the block starts, and which half it is (0 or 1)."""

    weights: tirx.Buffer
    start: tir.Expr
    bits: int
    half: int


# Half a block in registers: whatever vectors, or array, its dot makes of it.
Loaded: TypeAlias = Any

NOTHING: Mapping[int, int] = MappingProxyType({})


class Dot(Protocol):
    """A way to multiply half a block by activations.

    `layout` is how blocks are stored; `subtracted` what `load` takes off weights, by their bits: 128 makes unsigned
    bytes signed ones.
    """

    layout: BlockLayout
    subtracted: Mapping[int, int]

    def load(self, half: HalfBlock) -> Loaded:
        """Return half a block in registers."""

    def add(self, loaded: Loaded, values: tirx.Buffer, start: tir.Expr, first: tir.Expr) -> tir.Expr:
        """Return `first` (int32x16) plus the products with the 16 activations at `start`."""


class VnniDot:
    """vpdpbusd on 512-bit registers: each 32-bit lane takes four products of unsigned weights with activations."""

    layout: BlockLayout = QuadLayout()
    subtracted = NOTHING

    def load(self, half: HalfBlock) -> Loaded:
        """Return one vector of 64 weights a quad."""
        return load_quads(half, 0, 64)

    def add(self, loaded: Loaded, values: tirx.Buffer, start: tir.Expr, first: tir.Expr) -> tir.Expr:
        """Return `first` (int32x16) plus the products with the 16 activations at `start`."""
        total = first
        for quad, weights in enumerate(loaded):
            four = _broadcast_four(values, start + quad * 4, 64)
            total = tir.bind(
                op.call_llvm_pure_intrin("int32x16", "llvm.x86.avx512.vpdpbusd.512", total, weights, four)
            )
        return total


class NarrowVnniDot:
    """vpdpbusd on 256-bit registers: a block is two of 8 columns."""

    layout: BlockLayout = QuadLayout()
    subtracted = NOTHING

    def load(self, half: HalfBlock) -> Loaded:
        """Return one vector of 32 weights a quad for columns 0-7, then the same for 8-15."""
        return [*load_quads(half, 0, 32), *load_quads(half, 32, 32)]

    def add(self, loaded: Loaded, values: tirx.Buffer, start: tir.Expr, first: tir.Expr) -> tir.Expr:
        """Return `first` (int32x16) plus the products with the 16 activations at `start`."""
        sides = [tir.splat(tirx.const(0, "int32"), 8)] * 2
        for quad in range(QUADS):
            four = tir.bind(_broadcast_four(values, start + quad * 4, 32))
            sides = [
                tir.bind(
                    op.call_llvm_pure_intrin("int32x8", "llvm.x86.avx512.vpdpbusd.256", total, weights, four)
                )
                for total, weights in zip(sides, loaded[quad::QUADS], strict=True)
            ]
        return tir.bind(first + tir.join(*sides))


class MaddDot:
    """vpmaddubsw and vpmaddwd on 256-bit registers, in weights of up to 6 bits, which cannot saturate them.

    vpmaddubsw adds two products in 16 signed bits. With 5-bit weights and activations of at least -128 a pair is within
    2 · 31 · 128 = 7,936 and the four quads of a half together within 31,744 < 32,768: so they are added up in 16 bits
    and widened once, by vpmaddwd with ones. With 6 bits two quads stay within 32,256. Eight bits (pairs up to 65,280)
    would saturate: they are split into two nibbles, whose sums vpmaddwd widens with ones and with sixteens.
    """

    layout: BlockLayout = QuadLayout()
    subtracted = NOTHING

    def load(self, half: HalfBlock) -> Loaded:
        """Return how many quads are widened at once, and vectors of 32 weights: the quads of columns 0-7, of 8-15
        [, then both in high nibbles].
        """
        quads = [*load_quads(half, 0, 32), *load_quads(half, 32, 32)]
        if half.bits == 8:
            nibbles = [_nibbles(quad, 32) for quad in quads]
            quads = [*(low for low, _ in nibbles), *(high for _, high in nibbles)]
        return 2 if half.bits == 6 else QUADS, quads

    def add(self, loaded: Loaded, values: tirx.Buffer, start: tir.Expr, first: tir.Expr) -> tir.Expr:
        """Return `first` (int32x16) plus the products with the 16 activations at `start`."""
        at_once, quads = loaded
        total = first
        for begin in range(0, QUADS, at_once):
            words: list[tir.Expr] = []
            for quad in range(begin, begin + at_once):
                four = tir.bind(_broadcast_four(values, start + quad * 4, 32))
                products = [
                    op.call_llvm_pure_intrin("int16x16", "llvm.x86.avx2.pmadd.ub.sw", weights, four)
                    for weights in quads[quad::QUADS]
                ]
                words = [tir.bind(a + b) for a, b in zip(words, products, strict=True)] if words else products
            total = tir.bind(total + _widened(words))
        return total


class WideningDot:
    """Products in 32-bit integers, one input at a time for 16 columns: any vector unit, or none, can do it.

    Loops stay loops: written out for eight rows they took LLVM minutes.
    """

    layout: BlockLayout = ColumnLayout()
    subtracted = NOTHING

    def load(self, half: HalfBlock) -> Loaded:
        """Return an array of 16 columns for each input, widened to 16 bits once for all rows."""
        first = half.half * HALF if half.bits == 8 else 0
        widened = tir.registers(HALF * tir.LANES, "int16")
        with tir.loop(0, HALF) as k:
            packed = tir.bind(tir.load(half.weights, half.start + (first + k) * tir.LANES))
            column = self._nibble(packed, half.bits, half.half)
            tir.store(widened, tir.cast(column, "int16x16"), k * tir.LANES)
        if half.bits != low_bits(half.bits):
            self._add_high_bits(half, widened)
        return widened

    def _add_high_bits(self, half: HalfBlock, widened: tirx.Buffer) -> None:
        """Emit the loop over rows of high bits, each of which holds those of several inputs of the half."""
        high = half.bits - low_bits(half.bits)
        rows = HALF * high * 2 // 8
        with tir.loop(0, rows) as row:
            for first in range(0, HALF, rows):
                place = self.layout.places(half.half * HALF + first, half.bits)[-1]
                bits = tir.bind(tir.load(half.weights, half.start + place.offset + row * tir.LANES))
                at = (first + row) * tir.LANES
                column = tir.load(widened, at) + tir.cast(moved_bits(bits, place, tir.LANES), "int16x16")
                tir.store(widened, column, at)

    def add(self, loaded: Loaded, values: tirx.Buffer, start: tir.Expr, first: tir.Expr) -> tir.Expr:
        """Return `first` (int32x16) plus the products with the 16 activations at `start`."""
        total = tir.registers(tir.LANES, "int32")
        tir.store(total, first, 0)
        with tir.loop(0, HALF) as k:
            value = tir.splat(tir.cast(values[start + k], "int32"))
            column = tir.cast(tir.load(loaded, k * tir.LANES), "int32x16")
            tir.store(total, tir.load(total, 0) + column * value, 0)
        return tir.load(total, 0)

    @staticmethod
    def _nibble(packed: tir.Expr, bits: int, half: int) -> tir.Expr:
        if bits == 8:
            return packed
        if half == 0:
            return op.bitwise_and(packed, tir.splat(tirx.const(15, "uint8")))
        return op.shift_right(packed, tir.splat(tirx.const(4, "uint8")))


def load_quads(half: HalfBlock, offset: int, size: int) -> list[tir.Expr]:
    """Return a vector of unsigned bytes for each quad: `size` bytes at `offset` of its chunk of 64."""
    chunks = HALF * low_bits(half.bits) // 8 * tir.LANES // 64
    places = [half.start + (half.half * chunks + chunk) * 64 + offset for chunk in range(chunks)]
    packed = [tir.bind(tir.load(half.weights, place, size)) for place in places]
    if half.bits == 8:
        return packed
    return with_high_bits(half, [part for chunk in packed for part in _nibbles(chunk, size)], offset, size)


def with_high_bits(half: HalfBlock, quads: Sequence[tir.Expr], offset: int, size: int) -> list[tir.Expr]:
    """Return the half's four quads, vectors of `size` nibbles, with the bits above those where weights have some."""
    if half.bits == low_bits(half.bits):
        return list(quads)
    places = [QuadLayout().places(half.half * HALF + 4 * quad, half.bits)[-1] for quad in range(QUADS)]
    loaded = {
        start: tir.bind(tir.load(half.weights, half.start + start + offset, size))
        for start in sorted({place.offset for place in places})
    }
    return [
        tir.bind(op.bitwise_or(quad, moved_bits(loaded[place.offset], place, size)))
        for quad, place in zip(quads, places, strict=True)
    ]


def moved_bits(packed: tir.Expr, place: Place, size: int) -> tir.Expr:
    """Return a vector of bytes with the bits at `place` of each where they belong in a weight, and no others."""
    distance = place.shift - place.first_bit
    mask = (1 << place.bits) - 1 << place.first_bit
    return op.bitwise_and(
        _shifted(packed, distance, size) if distance else packed, tir.splat(tirx.const(mask, "uint8"), size)
    )


def _nibbles(packed: tir.Expr, size: int) -> tuple[tir.Expr, tir.Expr]:
    """Return the low and the high nibbles of a vector of bytes."""
    mask = tir.splat(tirx.const(15, "uint8"), size)
    high = op.bitwise_and(_shifted(packed, 4, size), mask)
    return tir.bind(op.bitwise_and(packed, mask)), tir.bind(high)


def _shifted(packed: tir.Expr, distance: int, size: int) -> tir.Expr:
    """Return a vector of bytes shifted right, or left by a negative distance, with bits of its neighbour in each.

    Bytes have no shift of their own: 16-bit lanes are shifted, and the caller masks away what crossed over. Left to
    LLVM, a shift of bytes becomes an instruction of GFNI, which not every processor with AVX512-VNNI has.
    """
    words = op.reinterpret(f"uint16x{size // 2}", packed)
    by = tir.splat(tirx.const(abs(distance), "uint16"), size // 2)
    return op.reinterpret(f"uint8x{size}", (op.shift_right if distance > 0 else op.shift_left)(words, by))


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
