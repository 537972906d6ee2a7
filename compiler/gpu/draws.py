"""Kernels that choose, by its largest logit, which blocks of 16 logits a draw will look at.

They are computed along with the call, so that the draw need not wait for the device once more. Which ones they are
changes no token: the core decides which it needs (`draw.cpp`) and asks for those that were not chosen here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tvm import tirx
from tvm.tirx import op

from forerun.compiler import tir
from forerun.compiler.gpu.matmul import ROW_ITEMS
from forerun.compiler.gpu.writer import GpuKernel, GpuWriter, Grid, unsigned, writing
from forerun.compiler.tir import LANES, Expr
from forerun.targets.gpu import GpuTarget

# Words of a row in the table of draws: the noise's key, low half first, and the float32 bits of 1 / temperature, 0
# where a draw goes by the logits alone.
DRAW_WORDS = 3
_HALF = 0xFFFF


def pick_blocks(name: str, target: GpuTarget, blocks: int) -> GpuKernel:
    """Return the kernel that finds the first of each row's largest maxima.

    Parameters of the kernel: maxima [rows, blocks], items [rows].
    """
    threads, inputs, outputs = target.workgroup_threads, {"maxima": "float32"}, {"items": "int32"}
    with writing(name, target.computes, inputs, outputs, {}, threads=threads, grid=Grid(1, 1)) as (
        writer,
        done,
    ):
        maxima, start = writer.named["maxima"], tir.bind(writer.y * blocks)
        best, place = writer.shared(threads), writer.shared(threads, "int32")
        own, own_place = writer.own(1), writer.own(1, "int32")
        # A thread without a block repeats the last one.
        first = tir.bind(op.min(writer.thread, blocks - 1))
        tir.store_one(own, maxima[start + first], 0)
        tir.store_one(own_place, first, 0)
        with writer.items(blocks) as block:
            value = tir.bind(maxima[start + block])
            with tir.when(value > own[0]):
                tir.store_one(own, value, 0)
                tir.store_one(own_place, block, 0)
        tir.store_one(best, own[0], writer.thread)
        tir.store_one(place, own_place[0], writer.thread)
        writer.meet()
        with tir.when(writer.thread < LANES), tir.loop(1, threads // LANES) as i:
            _keep_first_of_largest(best, place, writer.thread, tir.bind(writer.thread + i * LANES))
        writer.meet()
        with tir.when(writer.thread == 0):
            with tir.loop(1, LANES) as other:
                _keep_first_of_largest(best, place, 0, other)
            tir.store_one(writer.named["items"], place[0], writer.y)
    return done[0]


def _keep_first_of_largest(best: tirx.Buffer, place: tirx.Buffer, one: Expr | int, other: Expr) -> None:
    """Make number `one` of what was found the larger of two, or of equal ones the one whose place is before."""
    earlier = tirx.all(best[other] == best[one], place[other] < place[one])
    with tir.when(tirx.any(best[other] > best[one], earlier)):
        tir.store_one(place, place[other], one)
        tir.store_one(best, best[other], one)


def score_blocks(name: str, target: GpuTarget, vocabulary: int) -> GpuKernel:
    """Return the kernel that finds how high a score each block's maximum may reach with the noise of its best lane.

    The noise is bounded as `gumbel_bound` in sampling.h bounds it, by -log(1 - u), but within 0.06 of that, and float32
    rounds it. Scores are written as words in the order of the numbers.

    Parameters of the kernel: maxima [rows, blocks], draws [rows, 3], logits [rows, blocks], which no draw reads.
    """
    threads, blocks = target.workgroup_threads, -(-vocabulary // LANES)
    inputs, outputs = {"maxima": "float32", "draws": "uint32"}, {"logits": "uint32"}
    grid = Grid(-(-blocks // threads), 1)
    with writing(name, target.computes, inputs, outputs, {}, threads=threads, grid=grid) as (writer, done):
        block = tir.bind(writer.x * threads + writer.thread)
        with tir.when(block < blocks):
            place = tir.bind(writer.y * blocks + block)
            low, high, inverse = (
                tir.bind(writer.named["draws"][writer.y * DRAW_WORDS + i]) for i in range(DRAW_WORDS)
            )
            score = writer.own(1)
            tir.store_one(score, writer.named["maxima"][place], 0)
            with tir.when(inverse != unsigned(0)):
                noise = _highest_noise(writer, _Word64(low, high), block, vocabulary)
                factor = tir.bind(op.reinterpret("float32", inverse))
                tir.store_one(score, writer.multiply_add(score[0], factor, _noise_bound(noise)), 0)
            tir.store_one(writer.named["logits"], _ascending(score[0]), place)
    return done[0]


class _Word64:
    """64 bits as two 32-bit words: WebGPU has no wider ones."""

    def __init__(self, low: Expr, high: Expr) -> None:
        self.low, self.high = low, high

    def xor(self, other: _Word64) -> _Word64:
        """Return the bits in which the two differ."""
        low, high = op.bitwise_xor(self.low, other.low), op.bitwise_xor(self.high, other.high)
        return _Word64(tir.bind(low), tir.bind(high))

    def shift_right(self, count: int) -> _Word64:
        """Return the number shifted by fewer than 32 bits."""
        carried = op.shift_left(self.high, unsigned(32 - count))
        low = op.bitwise_or(op.shift_right(self.low, unsigned(count)), carried)
        return _Word64(tir.bind(low), tir.bind(op.shift_right(self.high, unsigned(count))))

    def times(self, factor: int) -> _Word64:
        """Return the low 64 bits of the product with a constant."""
        low, high = factor & 0xFFFFFFFF, factor >> 32
        upper = _upper_product(self.low, low) + self.low * unsigned(high) + self.high * unsigned(low)
        return _Word64(tir.bind(self.low * unsigned(low)), tir.bind(upper))


def _upper_product(word: Expr, factor: int) -> Expr:
    """Return the upper word of the 64-bit product of two words, from products of halves that each fit into one."""
    halves = [tir.bind(op.bitwise_and(word, unsigned(_HALF))), tir.bind(op.shift_right(word, unsigned(16)))]
    low, high = unsigned(factor & _HALF), unsigned(factor >> 16)
    first = tir.bind(halves[1] * low + op.shift_right(halves[0] * low, unsigned(16)))
    second = tir.bind(halves[0] * high + op.bitwise_and(first, unsigned(_HALF)))
    carried = op.shift_right(first, unsigned(16)) + op.shift_right(second, unsigned(16))
    return tir.bind(halves[1] * high + carried)


def _token_noise(key: _Word64, token: Expr) -> Expr:
    """Return the upper word of a token's noise: `token_noise` and `mix` in sampling.h."""
    value = key.xor(_Word64(token, unsigned(0)).times(0x8CB92BA72F3D8DD7))
    value = value.xor(value.shift_right(30)).times(0xBF58476D1CE4E5B9)
    value = value.xor(value.shift_right(27)).times(0x94D049BB133111EB)
    return op.bitwise_xor(value.high, op.shift_right(value.high, unsigned(31)))


def _highest_noise(writer: GpuWriter, key: _Word64, block: Expr, vocabulary: int) -> Expr:
    """Return the largest noise of a block's tokens, its upper word."""
    highest = writer.own(1, "uint32")
    tir.store_one(highest, unsigned(0), 0)
    with tir.loop(0, LANES) as lane:
        # Past the end of the vocabulary the last token is looked at once more.
        token = tir.bind(op.min(block * LANES + lane, vocabulary - 1))
        noise = tir.bind(_token_noise(key, tir.bind(tir.cast(token, "uint32"))))
        tir.store_one(highest, op.max(highest[0], noise), 0)
    return highest[0]


def _noise_bound(noise: Expr) -> Expr:
    """Return -log(1 - u) or a little more: a float32's bits are its logarithm, with chords instead of curves."""
    beside = tir.bind(tir.cast(op.bitwise_xor(noise, unsigned(0xFFFFFFFF)), "float32"))
    bits = tir.cast(op.reinterpret("uint32", beside), "float32")
    exponent = tir.bind(bits * tirx.const(2.0**-23, "float32"))  # and 127
    return tir.bind((tirx.const(127.0 + 32.0, "float32") - exponent) * tirx.const(math.log(2.0), "float32"))


def _ascending(value: Expr) -> Expr:
    """Return a float32 number as a word: larger ones as larger words."""
    bits = tir.bind(op.reinterpret("uint32", value))
    flipped = tirx.Select(bits >= unsigned(1 << 31), unsigned(0xFFFFFFFF), unsigned(1 << 31))
    return op.bitwise_xor(bits, tir.bind(flipped))


def list_blocks(name: str, target: GpuTarget, blocks: int) -> GpuKernel:
    """Return the kernel that lists each row's `row_items` blocks of the highest scores, in ascending order.

    Of blocks with equal scores the first are taken; row_items is at most `blocks`. The lowest score that is in is found
    bit by bit, and where a block goes by how many of the threads before have some: the same list every time.

    Parameters of the kernel: logits [rows, blocks], the words of `score_blocks`; items [rows, row_items]; row_items.
    """
    inputs, outputs, scalars = {"logits": "uint32"}, {"items": "int32"}, {ROW_ITEMS: "int32"}
    threads, grid = target.workgroup_threads, Grid(1, 1)
    with writing(name, target.computes, inputs, outputs, scalars, threads=threads, grid=grid) as (
        writer,
        done,
    ):
        _Lister(writer, blocks).run()
    return done[0]


class _Lister:
    """A workgroup that lists a row's blocks: each thread has some that follow one another."""

    def __init__(self, writer: GpuWriter, blocks: int) -> None:
        self.writer, self.blocks = writer, blocks
        self.each = -(-blocks // writer.threads)
        self.start = tir.bind(writer.y * blocks)
        self.counts = writer.shared(writer.threads, "int32")
        self.wanted = writer.scalars[ROW_ITEMS]

    def run(self) -> None:
        """Emit the kernel's body."""
        lowest = self._lowest()
        above, all_above = self._tally(lambda score: score > lowest)
        equal, _ = self._tally(lambda score: score == lowest)
        self._write(lowest, (above, equal), tir.bind(self.wanted - all_above))

    @contextmanager
    def _each(self) -> Iterator[tuple[Expr, Expr]]:
        """Go through the thread's blocks; gives each with its score."""
        with tir.loop(0, self.each) as i:
            block = tir.bind(self.writer.thread * self.each + i)
            with tir.when(block < self.blocks):
                yield block, tir.bind(self.writer.named["logits"][self.start + block])

    def _count(self, chosen: Callable[[Expr], Expr]) -> Expr:
        """Return how many of this thread's scores are chosen."""
        count = self.writer.own(1, "int32")
        tir.store_one(count, tirx.const(0, "int32"), 0)
        with self._each() as (_, score), tir.when(chosen(score)):
            tir.store_one(count, count[0] + 1, 0)
        return count[0]

    def _tally(self, chosen: Callable[[Expr], Expr]) -> tuple[Expr, Expr]:
        """Return how many scores are chosen of the threads before this one, and of all."""
        tir.store_one(self.counts, self._count(chosen), self.writer.thread)
        self.writer.meet()
        before, total = self.writer.own(1, "int32"), self.writer.own(1, "int32")
        for sums in (before, total):
            tir.store_one(sums, tirx.const(0, "int32"), 0)
        with tir.loop(0, self.writer.threads) as other:
            count = tir.bind(self.counts[other])
            tir.store_one(total, total[0] + count, 0)
            with tir.when(other < self.writer.thread):
                tir.store_one(before, before[0] + count, 0)
        self.writer.meet()
        return tir.bind(before[0]), tir.bind(total[0])

    def _lowest(self) -> Expr:
        """Return the largest word that at least `row_items` of the scores reach: one of them."""
        lowest = self.writer.own(1, "uint32")
        tir.store_one(lowest, unsigned(0), 0)
        with tir.loop(0, 32) as bit:
            one = op.shift_right(unsigned(1 << 31), tir.cast(bit, "uint32"))
            higher = tir.bind(op.bitwise_or(lowest[0], one))
            reaching = self.writer.sum_of(self._count(lambda score: score >= higher), self.counts)
            with tir.when(reaching >= self.wanted):
                tir.store_one(lowest, higher, 0)
            self.writer.meet()
        return tir.bind(lowest[0])

    def _write(self, lowest: Expr, before: tuple[Expr, Expr], room: Expr) -> None:
        """List the blocks above the lowest score, and `room` of those at it; `before` are how many of both come
        before this thread's."""
        above, equal = self.writer.own(1, "int32"), self.writer.own(1, "int32")
        for count, start in zip((above, equal), before, strict=True):
            tir.store_one(count, start, 0)
        first = tir.bind(self.writer.y * self.wanted)
        with self._each() as (block, score):
            place = tir.bind(first + above[0] + op.min(equal[0], room))
            listed = tirx.any(score > lowest, tirx.all(score == lowest, equal[0] < room))
            with tir.when(listed):
                tir.store_one(self.writer.named["items"], block, place)
            with tir.when(score > lowest):
                tir.store_one(above, above[0] + 1, 0)
            with tir.when(score == lowest):
                tir.store_one(equal, equal[0] + 1, 0)
