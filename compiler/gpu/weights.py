"""Reading packed weights on a device: the `quads` layout in words of four inputs of a column."""

from __future__ import annotations

from tvm import tirx
from tvm.tirx import op

from forerun.compiler import tir
from forerun.compiler.gpu.writer import unsigned
from forerun.compiler.schedules.layouts import LOW_BYTES, low_bits
from forerun.compiler.tir import LANES, Expr
from forerun.compiler.vector_math import GROUP

QUADS = GROUP // 4  # words of four inputs in a group


def subtracted(bits: int) -> int:
    """Return what is taken off weights of that many bits: 128 makes unsigned bytes signed ones."""
    return 128 if bits == 8 else 0


class BlockWords:
    """One column's words of a block of 16 columns × 32 inputs; `start` is its first word's index."""

    def __init__(self, weights: tirx.Buffer, start: Expr, bits: int) -> None:
        self.weights, self.start, self.bits = weights, start, bits
        self._loaded: dict[int, Expr] = {}

    def quad(self, number: int | Expr) -> Expr:
        """Return inputs 4·number … 4·number + 3 as the signed bytes of one word, lowest first."""
        if self.bits == 8:
            return tir.bind(op.bitwise_xor(self._word(0, number), unsigned(0x80808080)))
        low, high = low_bits(self.bits), self.bits - low_bits(self.bits)
        value = self._part(0, number, low)
        if high:
            upper = self._part(LOW_BYTES // 4, number, high)
            value = op.bitwise_or(value, op.shift_left(upper, unsigned(low)))
        return tir.bind(value)

    def _part(self, first: int, number: int | Expr, bits: int) -> Expr:
        """Return `bits` bits of each input of a quad, in the bytes of a word; a chunk holds those of 8 / bits quads."""
        each = 8 // bits
        static = isinstance(number, int)
        chunk, part = divmod(number, each) if static else (tirx.floordiv(number, each), number % each)
        shift = unsigned(part * bits) if static else tir.cast(part * bits, "uint32")
        mask = unsigned(((1 << bits) - 1) * 0x01010101)
        return op.bitwise_and(op.shift_right(self._word(first, chunk), shift), mask)

    def _word(self, first: int, chunk: int | Expr) -> Expr:
        index = self.start + first + chunk * LANES
        if not isinstance(chunk, int):
            return self.weights[index]
        place = first + chunk * LANES
        if place not in self._loaded:
            self._loaded[place] = tir.bind(self.weights[index])
        return self._loaded[place]
