"""Attention over the cache on a device: a workgroup for each row, block of 128 positions and key/value head.

As on the CPU a block gives a part, which depends on nothing but the row and the keys it sees, in position order; a
second kernel puts a row's parts together in block order. All calls take this way, so that a row has the same bits in
any of them; calls of many rows run it for some rows at a time, since the parts of all would not fit into memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx
from tvm.tirx import op

from forerun.compiler import tir
from forerun.compiler.gpu.cache import DeviceCache
from forerun.compiler.gpu.outputs import RowPiece, write_rows
from forerun.compiler.gpu.rows import outputs_of
from forerun.compiler.gpu.words import row_field
from forerun.compiler.gpu.writer import GpuKernel, GpuWriter, Grid, writing
from forerun.compiler.schedules.rope import BLOCK, AttentionShape
from forerun.compiler.tir import LANES, Expr
from forerun.compiler.vector_math import exp
from forerun.targets.gpu import GpuTarget

_MASKED = -3.0e38  # finite: the difference of two masked scores must not be NaN

# Bytes that the threads of a workgroup may share on every device (WebGPU's least).
SHARED_BYTES = 16384


def part_floats(shape: AttentionShape) -> int:
    """Return the float32 numbers of one head's part: the weighted values, the weights' sum, the largest score."""
    return shape.head_dim + 2


def value_splits(shape: AttentionShape) -> int:
    """Return how many threads share one pair of dimensions of a block's values."""
    return max(1, BLOCK // (shape.head_dim // 2))


def shared_bytes(shape: AttentionShape) -> int:
    """Return what `attention_parts` shares: scores, slots, sums by lane and those of values."""
    values = value_splits(shape) * shape.group * shape.head_dim
    return 4 * (shape.group * BLOCK + BLOCK + 2 * shape.group * LANES + values)


def first_block(shape: AttentionShape, position: Expr) -> Expr | int:
    """Return the first block of positions of which a row sees any."""
    if not shape.window:
        return 0
    return tirx.floordiv(op.max(position + 1 - shape.window, 0), BLOCK)


def attention_parts(name: str, target: GpuTarget, shape: AttentionShape) -> GpuKernel:
    """Return the kernel that writes parts [blocks, rows, H, part].

    Parameters of the kernel: queries [M, H·d] already scaled, row_table, gather, keys, values, parts; capacity,
    gather_stride, block_count: the most blocks that a row sees something of; first_row: the row of the call that is the
    first of these `rows`.
    """
    inputs = {"queries": "float32", "row_table": "int32", "gather": "int32"}
    inputs |= {"keys": shape.kv_dtype, "values": shape.kv_dtype}
    scalars = dict.fromkeys(("capacity", "gather_stride", "block_count", "first_row"), "int32")
    grid = Grid("block_count", 1, shape.kv_heads)
    with writing(name, target.computes, inputs, {"parts": "float32"}, scalars, threads=BLOCK, grid=grid) as (
        writer,
        done,
    ):
        _Block(writer, shape).write()
    return done[0]


@dataclass(frozen=True)
class _Shared:
    """What the threads of a block share: scores, then weights [group, BLOCK]; slots; partial results."""

    scores: tirx.Buffer
    slots: tirx.Buffer
    lanes: tirx.Buffer  # [group, 16]
    largest: tirx.Buffer  # [group]
    values: tirx.Buffer  # [splits, group, d]


class _Block:
    """One block of one row for one key/value head; a thread has one position, then some dimensions of values."""

    def __init__(self, writer: GpuWriter, shape: AttentionShape) -> None:
        self.writer, self.shape = writer, shape
        self.cache = DeviceCache(shape, writer.scalars["capacity"])
        self.row = tir.bind(writer.scalars["first_row"] + writer.y)
        self.head = tir.bind(tirx.floormod(writer.x, shape.kv_heads))
        self.own = tir.bind(tirx.floordiv(writer.x, shape.kv_heads))  # number of the part among the row's
        position = row_field(writer, "positions", self.row)
        self.start = tir.bind((self.own + first_block(shape, position)) * BLOCK)
        self.stop = tir.bind(op.min(position + 1, self.start + BLOCK))
        least = position + 1 - shape.window if shape.window else self.start
        self.first = tir.bind(op.max(self.start, least)) if shape.window else self.start
        self.base = tir.bind(self.cache.base(row_field(writer, "sequences", self.row), self.head))
        splits = value_splits(shape)
        self.shared = _Shared(
            writer.shared(shape.group * BLOCK),
            writer.shared(BLOCK, "int32"),
            writer.shared(shape.group * LANES),
            writer.shared(shape.group),
            writer.shared(splits * shape.group * shape.head_dim),
        )

    def write(self) -> None:
        """Emit the block: nothing where the row ends before it."""
        with tir.when(self.start < self.stop):
            self._score()
            self.writer.meet()
            self._reduce(_MASKED, self.writer.maximum, self.shared.largest)
            self._exponentiate()
            self.writer.meet()
            parts = self.writer.named["parts"]
            self._reduce(0.0, lambda a, b: a + b, None)
            self._weigh_values()
            self.writer.meet()
            self._write_values(parts)

    def _part(self, g: Expr) -> Expr:
        """Return where the part of query head `g` of the group begins."""
        heads = (
            self.own * self.writer.rows + self.writer.y
        ) * self.shape.heads + self.head * self.shape.group
        return (heads + g) * part_floats(self.shape)

    def _inside(self, position: Expr) -> Expr:
        return tirx.all(position >= self.first, position < self.stop)

    def _score(self) -> None:
        """Score this thread's position for every query head of the group."""
        writer, shape = self.writer, self.shape
        position = tir.bind(self.start + writer.thread)
        slot = writer.own(1, "int32")
        tir.store_one(slot, position, 0)
        start = row_field(writer, "gather_start", self.row)
        inside = tir.bind(self._inside(position))
        with tir.when(tirx.all(inside, position >= start)):
            place = self.row * writer.scalars["gather_stride"] + position - start
            tir.store_one(slot, writer.named["gather"][place], 0)
        tir.store_one(self.shared.slots, self.cache.slot(slot[0]), writer.thread)
        sums = writer.own(shape.group)
        for g in range(shape.group):
            tir.store_one(sums, tirx.const(_MASKED, "float32"), g)
        with tir.when(inside):
            self._add_products(sums, tir.bind(self.base + self.cache.key_word(self.cache.slot(slot[0]))))
        for g in range(shape.group):
            tir.store_one(self.shared.scores, sums[g], g * BLOCK + writer.thread)

    def _add_products(self, sums: tirx.Buffer, first: Expr) -> None:
        """Set the sums to the products of the key whose first word is `first` with the queries."""
        writer, shape = self.writer, self.shape
        for g in range(shape.group):
            tir.store_one(sums, tirx.const(0.0, "float32"), g)
        query = tir.bind((self.row * shape.kv_heads + self.head) * (shape.group * shape.head_dim))
        with tir.loop(0, shape.head_dim // 2) as pair:
            low, high = self.cache.load_pair(writer, writer.named["keys"], first, pair, LANES)
            for g in range(shape.group):
                place = query + g * shape.head_dim + pair * 2
                total = writer.multiply_add(low, writer.named["queries"][place], sums[g])
                total = writer.multiply_add(high, writer.named["queries"][place + 1], tir.bind(total))
                tir.store_one(sums, total, g)

    def _reduce(self, first: float, join: Callable[[Expr, Expr], Expr], result: tirx.Buffer | None) -> None:
        """Join the block's 128 numbers of each head: 16 threads some in order, then one thread those.

        The result goes to `result`, or to the part as the weights' sum.
        """
        writer, group, each = self.writer, self.shape.group, BLOCK // LANES
        with writer.items(group * LANES) as item:
            total = writer.own(1)
            tir.store_one(total, tirx.const(first, "float32"), 0)
            head, lane = tirx.floordiv(item, LANES), tirx.floormod(item, LANES)
            with tir.loop(0, each) as i:
                number = self.shared.scores[head * BLOCK + i * LANES + lane]
                tir.store_one(total, join(total[0], number), 0)
            tir.store_one(self.shared.lanes, total[0], item)
        writer.meet()
        with writer.items(group) as g:
            total = self.shared.lanes[g * LANES]
            for lane in range(1, LANES):
                total = tir.bind(join(total, self.shared.lanes[g * LANES + lane]))
            if result is not None:
                tir.store_one(result, total, g)
            else:
                place = tir.bind(self._part(g) + self.shape.head_dim)
                tir.store_one(writer.named["parts"], total, place)
                tir.store_one(writer.named["parts"], self.shared.largest[g], place + 1)
        writer.meet()

    def _exponentiate(self) -> None:
        """Turn scores into weights e^(score - largest), 0 where the row does not see."""
        writer = self.writer
        with writer.items(self.shape.group * BLOCK) as item:
            g, within = tirx.floordiv(item, BLOCK), tirx.floormod(item, BLOCK)
            power = exp(writer, tir.bind(self.shared.scores[item] - self.shared.largest[g]))
            seen = self._inside(self.start + within)
            tir.store_one(self.shared.scores, tirx.Select(seen, power, tirx.const(0.0, "float32")), item)

    def _weigh_values(self) -> None:
        """Add up values in position order: a thread has a pair of dimensions and one of `splits` runs of positions."""
        writer, shape, splits = self.writer, self.shape, value_splits(self.shape)
        pairs, run = shape.head_dim // 2, BLOCK // value_splits(self.shape)
        with writer.items(splits * pairs) as item:
            split, pair = tir.bind(tirx.floordiv(item, pairs)), tir.bind(tirx.floormod(item, pairs))
            sums = writer.own(2 * shape.group)
            for i in range(2 * shape.group):
                tir.store_one(sums, tirx.const(0.0, "float32"), i)
            begin = tir.bind(op.max(self.first - self.start, split * run))
            end = tir.bind(op.min(self.stop - self.start, split * run + run))
            with tir.loop(begin, op.max(begin, end)) as within:
                self._add_value(within, pair, sums)
            for g in range(shape.group):
                place = tir.bind((split * shape.group + g) * shape.head_dim + pair * 2)
                for i in range(2):
                    tir.store_one(self.shared.values, sums[2 * g + i], place + i)

    def _add_value(self, within: Expr, pair: Expr, sums: tirx.Buffer) -> None:
        """Add a pair of dimensions of one position's value, times each head's weight, to the sums."""
        first = tir.bind(self.base + self.cache.value_word(self.shared.slots[within]))
        values = self.cache.load_pair(self.writer, self.writer.named["values"], first, pair, 1)
        for g in range(self.shape.group):
            weight = tir.bind(self.shared.scores[g * BLOCK + within])
            for i, value in enumerate(values):
                total = self.writer.multiply_add(weight, value, sums[2 * g + i])
                tir.store_one(sums, total, 2 * g + i)

    def _write_values(self, parts: tirx.Buffer) -> None:
        """Add the runs of positions up in their order."""
        shape, size = self.shape, self.shape.group * self.shape.head_dim
        with self.writer.items(size) as item:
            total = self.shared.values[item]
            for split in range(1, value_splits(shape)):
                total = tir.bind(total + self.shared.values[split * size + item])
            g, i = tirx.floordiv(item, shape.head_dim), tirx.floormod(item, shape.head_dim)
            tir.store_one(parts, total, self._part(g) + i)


def attention_merge(name: str, target: GpuTarget, shape: AttentionShape, quantized: bool) -> GpuKernel:
    """Return the kernel that puts parts together, a workgroup a head.

    Parameters of the kernel: parts, row_table, out; first_row as in `attention_parts`.
    """
    inputs, outputs = {"parts": "float32", "row_table": "int32"}, outputs_of(quantized)
    grid, threads = Grid(shape.heads, 1), LANES * 4
    scalars = {"first_row": "int32"}
    with writing(name, target.computes, inputs, outputs, scalars, threads=threads, grid=grid) as (
        writer,
        done,
    ):
        parts, dims = writer.named["parts"], shape.head_dim
        row = tir.bind(writer.scalars["first_row"] + writer.y)
        position = row_field(writer, "positions", row)
        count = tir.bind(tirx.floordiv(position + BLOCK, BLOCK) - first_block(shape, position))
        first = tir.bind((writer.y * shape.heads + writer.x) * part_floats(shape))
        stride = tir.bind(writer.rows * (shape.heads * part_floats(shape)))
        largest, total = writer.own(1), writer.own(1)
        tir.store_one(largest, parts[first + dims + 1], 0)
        with tir.loop(1, count) as index:
            most = parts[first + index * stride + dims + 1]
            tir.store_one(largest, writer.maximum(largest[0], most), 0)
        tir.store_one(total, tirx.const(0.0, "float32"), 0)
        with tir.loop(0, count) as index:
            place = tir.bind(first + index * stride + dims)
            factor = exp(writer, tir.bind(parts[place + 1] - largest[0]))
            tir.store_one(total, writer.multiply_add(factor, parts[place], total[0]), 0)
        inverse, merged = tir.bind(tirx.const(1.0, "float32") / total[0]), writer.shared(dims)
        with writer.items(dims) as i:
            value = writer.own(1)
            tir.store_one(value, tirx.const(0.0, "float32"), 0)
            with tir.loop(0, count) as index:
                place = tir.bind(first + index * stride)
                factor = exp(writer, tir.bind(parts[place + dims + 1] - largest[0]))
                tir.store_one(value, writer.multiply_add(factor, parts[place + i], value[0]), 0)
            tir.store_one(merged, value[0] * inverse, i)
        writer.meet()
        piece = RowPiece(1, dims, row, shape.heads * dims, writer.x * dims)
        write_rows(writer, lambda i: merged[i], piece)
    return done[0]
