"""The dots of 64-bit Arm, on 128-bit registers: a block is four sides of 4 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from tvm import tirx
from tvm.tirx import op

from forerun.compiler import tir
from forerun.compiler.schedules.dots import NOTHING, QUADS, HalfBlock, Loaded, with_high_bits
from forerun.compiler.schedules.layouts import BlockLayout, QuadLayout, low_bits
from forerun.compiler.vector_math import HALF

SIDES = 4  # registers of 4 columns in a block of 16
_BYTES = 16  # of a register
_SIGNED: Mapping[int, int] = MappingProxyType({8: 128})


class UsdotDot:
    """usdot: each 32-bit lane takes four products of unsigned weights with activations."""

    layout: BlockLayout = QuadLayout()
    subtracted = NOTHING

    def load(self, half: HalfBlock) -> Loaded:
        """Return, for each side, one vector of 16 weights a quad."""
        return _load_sides(half, signed=False)

    def add(self, loaded: Loaded, values: tirx.Buffer, start: tir.Expr, first: tir.Expr) -> tir.Expr:
        """Return `first` (int32x16) plus the products with the 16 activations at `start`."""
        return _add_quads("llvm.aarch64.neon.usdot", loaded, tir.load(values, start, HALF), first)


class SdotDot:
    """sdot: the same with signed weights."""

    layout: BlockLayout = QuadLayout()
    subtracted = _SIGNED

    def load(self, half: HalfBlock) -> Loaded:
        """Return, for each side, one vector of 16 weights a quad."""
        return _load_sides(half, signed=True)

    def add(self, loaded: Loaded, values: tirx.Buffer, start: tir.Expr, first: tir.Expr) -> tir.Expr:
        """Return `first` (int32x16) plus the products with the 16 activations at `start`."""
        return _add_quads("llvm.aarch64.neon.sdot", loaded, tir.load(values, start, HALF), first)


class NeonDot:
    """smull: products of 2 columns × 4 inputs in 16 bits, then added up in pairs.

    With weights of up to 6 bits the four quads of a half stay within 4 · 63 · 128 = 32,256 in 16 bits and are widened
    together; 8-bit ones (up to 16,384 a product) are widened quad by quad.
    """

    layout: BlockLayout = QuadLayout()
    subtracted = _SIGNED

    def load(self, half: HalfBlock) -> Loaded:
        """Return the bits of a weight and, for each side, one vector of 16 weights a quad."""
        return half.bits, _load_sides(half, signed=True)

    def add(self, loaded: Loaded, values: tirx.Buffer, start: tir.Expr, first: tir.Expr) -> tir.Expr:
        """Return `first` (int32x16) plus the products with the 16 activations at `start`."""
        bits, sides = loaded
        vector = tir.bind(op.reinterpret("int32x4", tir.load(values, start, HALF)))
        fours = [tir.bind(_repeated(vector, quad, 2)) for quad in range(QUADS)]
        return tir.bind(first + _joined([_side_sums(bits, side, fours) for side in sides]))


def _load_sides(half: HalfBlock, signed: bool) -> list[list[tir.Expr]]:
    """Return vectors of 16 weights, [side][quad]: unsigned, or signed with 128 taken off 8-bit ones."""
    return [[_as(quad, half.bits, signed) for quad in _load_side(half, side)] for side in range(SIDES)]


def _load_side(half: HalfBlock, side: int) -> list[tir.Expr]:
    chunks = HALF * low_bits(half.bits) // 8 * tir.LANES // 64
    first = half.start + half.half * chunks * 64 + side * _BYTES
    packed = [tir.bind(tir.load(half.weights, first + chunk * 64, _BYTES)) for chunk in range(chunks)]
    if half.bits == 8:
        return packed
    low, four = (tir.splat(tirx.const(value, "uint8"), _BYTES) for value in (15, 4))
    nibbles = [part for chunk in packed for part in (op.bitwise_and(chunk, low), op.shift_right(chunk, four))]
    return with_high_bits(half, nibbles, side * _BYTES, _BYTES)


def _as(weights: tir.Expr, bits: int, signed: bool) -> tir.Expr:
    if not signed:
        return tir.bind(weights)
    if bits == 8:
        weights = op.bitwise_xor(weights, tir.splat(tirx.const(128, "uint8"), _BYTES))
    return tir.bind(op.reinterpret(f"int8x{_BYTES}", weights))


def _add_quads(
    instruction: str, sides: Sequence[Sequence[tir.Expr]], values: tir.Expr, first: tir.Expr
) -> tir.Expr:
    """Return `first` plus the products, four a lane by `instruction`."""
    vector = tir.bind(op.reinterpret("int32x4", values))
    totals = [tir.part(first, side * 4, 4) for side in range(SIDES)]
    for quad in range(QUADS):
        four = tir.bind(_repeated(vector, quad, 4))
        totals = [
            tir.bind(op.call_llvm_pure_intrin("int32x4", instruction, total, side[quad], four))
            for total, side in zip(totals, sides, strict=True)
        ]
    return tir.bind(_joined(totals))


def _repeated(vector: tir.Expr, quad: int, times: int) -> tir.Expr:
    """Return four activations, lane `quad` of an int32x4, several times as bytes."""
    return op.reinterpret(f"int8x{4 * times}", tirx.Shuffle([vector], [quad] * times))


def _side_sums(bits: int, side: Sequence[tir.Expr], fours: Sequence[tir.Expr]) -> tir.Expr:
    """Return the sums of a side's 4 columns over half a group, int32x4."""
    pairs = [_pair_sums(bits, side, fours, columns) for columns in range(2)]
    return tir.bind(op.call_llvm_pure_intrin("int32x4", "llvm.aarch64.neon.addp", *pairs))


def _pair_sums(bits: int, side: Sequence[tir.Expr], fours: Sequence[tir.Expr], columns: int) -> tir.Expr:
    """Return, of columns 0 and 1 of a side or of 2 and 3, two sums each that are still to be added, int32x4."""
    products = [
        op.call_llvm_pure_intrin(
            "int16x8", "llvm.aarch64.neon.smull", tir.part(weights, columns * 8, 8), four
        )
        for weights, four in zip(side, fours, strict=True)
    ]
    if bits < 8:
        products = [_sum(products)]
    return _sum(
        [op.call_llvm_pure_intrin("int32x4", "llvm.aarch64.neon.saddlp", product) for product in products]
    )


def _sum(vectors: Sequence[tir.Expr]) -> tir.Expr:
    total = vectors[0]
    for vector in vectors[1:]:
        total = tir.bind(total + vector)
    return total


def _joined(sides: Sequence[tir.Expr]) -> tir.Expr:
    """Return one vector of the lanes of four."""
    return tir.join(tir.join(sides[0], sides[1]), tir.join(sides[2], sides[3]))
