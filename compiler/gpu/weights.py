"""Reading packed weights on a device: four inputs of a column as the bytes of one word."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType

from tvm import tirx
from tvm.tirx import op

from forerun.compiler import tir
from forerun.compiler.gpu.writer import unsigned
from forerun.compiler.schedules.layouts import LOW_BYTES, block_bytes, low_bits
from forerun.compiler.tir import LANES, Expr
from forerun.compiler.vector_math import GROUP
from forerun.targets.gpu import GpuTarget

QUADS = GROUP // 4  # words of four inputs in a group


def subtracted(bits: int) -> int:
    """Return what is taken off weights of that many bits: 128 makes unsigned bytes signed ones."""
    return 128 if bits == 8 else 0


class BlockWords(ABC):
    """One column's weights of a block of 16 columns × 32 inputs: of block number `place`, column `lane` of it.

    A quad's number is known when the kernel is built, or not; words of known quads are loaded once.
    """

    def __init__(self, weights: tirx.Buffer, place: Expr, lane: Expr, bits: int, texel: str) -> None:
        self.weights, self.lane, self.bits, self.texel = weights, lane, bits, texel
        self.start = tir.bind(place * (block_bytes(bits) // 4) + self._first_word())
        self._loaded: dict[int, Expr] = {}

    def quad(self, number: int | Expr) -> Expr:
        """Return inputs 4·number … 4·number + 3 as the signed bytes of one word, lowest first."""
        low, high = low_bits(self.bits), self.bits - low_bits(self.bits)
        value = self._part(0, number, low)
        if high:
            upper = self._part(LOW_BYTES // 4, number, high)
            value = op.bitwise_or(value, op.shift_left(upper, unsigned(low)))
        return tir.bind(op.bitwise_xor(value, unsigned(0x80808080)) if self.bits == 8 else value)

    @abstractmethod
    def _first_word(self) -> Expr:
        """The column's first word in the block."""

    @abstractmethod
    def _part(self, first: int, number: int | Expr, bits: int) -> Expr:
        """Return `bits` bits of each input of a quad, in the bytes of a word; those of the block begin at `first`."""

    def _word(self, place: int | Expr) -> Expr:
        if not isinstance(place, int):
            return self._load(self.start + place)
        if place not in self._loaded:
            self._loaded[place] = tir.bind(self._load(self.start + place))
        return self._loaded[place]

    def _load(self, index: Expr) -> Expr:
        if self.texel:
            return op.call_pure_extern("uint32", self.texel, self.weights.data, index)
        return self.weights[index]


class QuadWords(BlockWords):
    """Of the layout `quads`: a word holds a quad's bits, and those of 8 / bits - 1 others."""

    def _first_word(self) -> Expr:
        return self.lane

    def _part(self, first: int, number: int | Expr, bits: int) -> Expr:
        chunk, part = _divided(number, 8 // bits)
        word = self._word(first + chunk * LANES)
        if bits == 8:
            return word
        shift = unsigned(part * bits) if isinstance(part, int) else tir.cast(part * bits, "uint32")
        return op.bitwise_and(op.shift_right(word, shift), unsigned(((1 << bits) - 1) * 0x01010101))


class ColumnWords(BlockWords):
    """Of the layout `columns`: a word holds the bits of one input of four columns side by side."""

    def _first_word(self) -> Expr:
        return tirx.floordiv(self.lane, 4)

    def _part(self, first: int, number: int | Expr, bits: int) -> Expr:
        part, row = _divided(number, QUADS * bits // 8)  # rows of four inputs
        shift = tir.bind(tir.cast(tirx.floormod(self.lane, 4) * 8 + part * bits, "uint32"))
        value, mask = unsigned(0), unsigned((1 << bits) - 1)
        for byte in range(4):
            word = self._word(first + (row * 4 + byte) * (LANES // 4))
            one = op.bitwise_and(op.shift_right(word, shift), mask)
            value = op.bitwise_or(value, op.shift_left(one, unsigned(8 * byte)))
        return tir.bind(value)


_WORDS: Mapping[str, type[BlockWords]] = MappingProxyType({"quads": QuadWords, "columns": ColumnWords})


def block_words(target: GpuTarget, weights: tirx.Buffer, place: Expr, lane: Expr, bits: int) -> BlockWords:
    """Return a column's weights of a block, which lie as the target's do."""
    return _WORDS[target.weight_layout](weights, place, lane, bits, target.computes.texel)


def _divided(number: int | Expr, by: int) -> tuple[int | Expr, int | Expr]:
    if isinstance(number, int):
        return divmod(number, by)
    return tirx.floordiv(number, by), tirx.floormod(number, by)
