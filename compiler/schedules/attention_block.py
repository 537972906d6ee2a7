"""Attention of one row over one block of positions, for all query heads that share a key/value head.

The result is a part: for each head the weighted values [d], the weights' sums by lane [16] and the block's largest
score in every lane [16]; weights are e^(score - largest). `merge_parts` puts the parts of a row together. Blocks
start at multiples of BLOCK positions and everything within one runs in position order, so that a part depends on
nothing but the row and the keys it sees: not on the tree, the threads or the other rows of the call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tvm import tirx
from tvm.tirx import op

from forerun.compiler import tir
from forerun.compiler.schedules.rope import BLOCK, AttentionShape, key_block_start, ring_slot
from forerun.compiler.vector_math import GROUP, QuantizedRows, exp, quantize_group

# Positions between a key or value and the one asked for while it is used: scoring and weighing take turns, which
# hardware prefetching does not follow. One thread of a Zen 5 read keys and values from memory at 31 GB/s, without
# at 18.
_AHEAD = 64

_MASKED = -3.0e38  # finite: the difference of two masked scores must not be NaN
_PARTIAL_SUMS = 2  # independent chains per score, added in a fixed order: hides the latency of multiply-add


def part_floats(shape: AttentionShape) -> int:
    """Return the float32 numbers of one head's part."""
    return shape.head_dim + 2 * tir.LANES


@dataclass(frozen=True)
class RowBlock:
    """One block of one row for one key/value head: positions start … stop-1, found in the cache through `gather`.

    With a window the row sees only those from `first` on.
    """

    writer: tir.KernelWriter
    shape: AttentionShape
    row: tir.Expr
    head: tir.Expr
    start: tir.Expr
    first: tir.Expr
    stop: tir.Expr
    turned: tir.Expr | int  # slot less position of what is read in place: not 0 where a ring has come round
    base: tir.Expr  # first element of the sequence's keys and values for this head
    gather_start: tir.Expr
    direct: tir.Expr  # lanes-wide groups of keys read in place; the rest is copied to the tail
    groups: tir.Expr  # lanes-wide groups in all
    ahead: tir.Expr  # elements from a key or value to those worth asking for; 0 at the end of the row
    accumulators: int  # vectors of sums that stay in registers

    @property
    def buffers(self) -> dict[str, tirx.Buffer]:
        """The kernel's buffers by name."""
        return self.writer.named

    def query(self, g: int | tir.Expr) -> tir.Expr:
        """Index of query head `g`'s first element; outputs lie alike."""
        heads = self.row * self.shape.kv_heads + self.head
        return (heads * self.shape.group + g) * self.shape.head_dim

    def slot(self, position: tir.Expr) -> tir.Expr:
        """The cache slot of a position at or past gather_start."""
        _, stride = self.writer.scalars
        offset = tir.cast(position - self.gather_start, "int64")
        return ring_slot(self.shape, self.buffers["gather"][tir.cast(self.row, "int64") * stride + offset])


def open_block(
    writer: tir.KernelWriter,
    shape: AttentionShape,
    accumulators: int,
    row: tir.Expr,
    head: tir.Expr,
    start: tir.Expr,
) -> RowBlock:
    """Return the block of a row that begins at position `start`, which the row must see."""
    buffers, capacity = writer.named, writer.scalars[0]
    base = tir.bind(key_block_start(shape, capacity, buffers["sequences"][row], head))
    length = tir.bind(buffers["positions"][row] + 1)
    stop = tir.bind(op.min(length, start + BLOCK))
    first = tir.bind(op.max(start, length - shape.window)) if shape.window else start
    turned = tir.bind(ring_slot(shape, start) - start) if shape.window else 0
    ahead = tir.bind(op.if_then_else(length > start + _AHEAD, _AHEAD * shape.head_dim, 0))
    gather_start = tir.bind(buffers["gather_start"][row])
    groups = tir.bind(tirx.floordiv(stop - start + (tir.LANES - 1), tir.LANES))
    in_place = tirx.floordiv(op.max(gather_start - start, 0), tir.LANES)
    direct = tir.bind(op.if_then_else(gather_start >= stop, groups, in_place))
    return RowBlock(
        *(writer, shape, row, head, start, first, stop, turned, base),
        *(gather_start, direct, groups, ahead, accumulators),
    )


def write_part(block: RowBlock, parts: tirx.Buffer, first: tir.Expr) -> None:
    """Compute the block and write the parts of its query heads to `parts`, from element `first` (int64) on."""
    _gather_tail(block)
    largest = _score(block)
    _exponentiate(block, largest, parts, first)
    _weigh_values(block, parts, first)


def _key_offset(shape: AttentionShape, slot: tir.Expr) -> tir.Expr:
    return tirx.floordiv(slot, tir.LANES) * (shape.head_dim * tir.LANES) + tirx.floormod(slot, tir.LANES)


def _gather_tail(block: RowBlock) -> None:
    """Copy the keys past the direct groups into private groups of the same layout."""
    keys, tail, dims = block.buffers["keys"], block.buffers["tail"], block.shape.head_dim
    begin = tir.bind(block.start + block.direct * tir.LANES)
    with tir.loop(begin, op.max(block.stop, begin)) as position:
        slot = tir.registers(1, "int32")
        tir.store_one(slot, position + block.turned, 0)
        with tir.when(position >= block.gather_start):
            tir.store_one(slot, block.slot(position), 0)
        source = tir.bind(block.base + tir.cast(_key_offset(block.shape, slot[0]), "int64"))
        target = tir.bind(_key_offset(block.shape, position - begin))
        with tir.loop(0, dims) as i:
            tir.store_one(tail, keys[source + tir.cast(i * tir.LANES, "int64")], target + i * tir.LANES)


def _score(block: RowBlock) -> list[tir.Expr]:
    """Write the scores, [group, BLOCK], and return each head's largest."""
    shape, group_elements = block.shape, block.shape.head_dim * tir.LANES
    running = [tir.registers(tir.LANES) for _ in range(shape.group)]
    for vector in running:
        tir.store(vector, tir.floats(_MASKED), 0)
    first = tir.bind(block.base + tir.cast(block.start + block.turned, "int64") * shape.head_dim)
    # Two groups share the load of a query's element and are enough independent sums to hide their latency.
    together = 2 if 2 * _PARTIAL_SUMS * shape.group <= block.accumulators else 1
    steps = tir.bind(tirx.floordiv(block.direct, together))
    with tir.loop(0, steps) as step:
        index = tir.bind(step * together)
        start = tir.bind(first + tir.cast(index * group_elements, "int64"))
        _score_groups(block, together, block.buffers["keys"], start, index, running)
    with tir.loop(tir.bind(steps * together), block.direct) as index:
        start = tir.bind(first + tir.cast(index * group_elements, "int64"))
        _score_groups(block, 1, block.buffers["keys"], start, index, running)
    with tir.loop(block.direct, op.max(block.groups, block.direct)) as index:
        start = tir.bind((index - block.direct) * group_elements)
        _score_groups(block, 1, block.buffers["tail"], start, index, running)
    return [tir.bind(tir.lanes_max(tir.load(vector, 0))) for vector in running]


def _inside(block: RowBlock, index: tir.Expr) -> tir.Expr:
    """Which lanes of a group of positions the row sees."""
    positions = tir.ramp(tir.bind(block.start + index * tir.LANES))
    inside = positions < tir.splat(block.stop)
    return op.bitwise_and(inside, positions >= tir.splat(block.first)) if block.shape.window else inside


def _score_groups(
    block: RowBlock,
    count: int,
    keys: tirx.Buffer,
    start: tir.Expr,
    index: tir.Expr,
    running: Sequence[tirx.Buffer],
) -> None:
    """Score `count` times 16 positions for each head; positions past the length are masked."""
    dims, heads = block.shape.head_dim, range(block.shape.group)
    # Arrays stay below the size at which TVM would put them on a heap.
    chains = [[tir.registers(count * tir.LANES) for _ in range(_PARTIAL_SUMS)] for _ in heads]
    for chain in (chain for head in chains for chain in head):
        for k in range(count):
            tir.store(chain, tir.floats(0.0), k * tir.LANES)
    with tir.loop(0, dims // _PARTIAL_SUMS) as step:
        if keys is not block.buffers["tail"]:
            _prefetch(block, keys, start + step * (count * _PARTIAL_SUMS * tir.LANES), count * _PARTIAL_SUMS)
        for part in range(_PARTIAL_SUMS):
            i = step * _PARTIAL_SUMS + part
            columns = [tir.load(keys, start + (i + k * dims) * tir.LANES) for k in range(count)]
            _add_products(block, columns, i, [chain[part] for chain in chains])
    for g in heads:
        for k in range(count):
            total = tir.load(chains[g][0], k * tir.LANES) + tir.load(chains[g][1], k * tir.LANES)
            score = tir.bind(tirx.Select(_inside(block, index + k), total, tir.floats(_MASKED)))
            tir.store(block.buffers["scores"], score, g * BLOCK + (index + k) * tir.LANES)
            tir.store(running[g], block.writer.maximum(tir.load(running[g], 0), score), 0)


def _add_products(
    block: RowBlock, columns: Sequence[tir.Expr], i: tir.Expr, sums: Sequence[tirx.Buffer]
) -> None:
    """Add keys' dimension `i`, 16 positions a column, times each head's query to the head's sums."""
    heads = range(block.shape.group)
    factors = [tir.splat(tir.bind(block.buffers["queries"][block.query(g) + i])) for g in heads]
    for k, stored in enumerate(columns):
        column, at = tir.bind(block.writer.to_floats(stored)), k * tir.LANES
        for total, factor in zip(sums, factors, strict=True):
            tir.store(total, block.writer.multiply_add(column, factor, tir.load(total, at)), at)


def _prefetch(block: RowBlock, buffer: tirx.Buffer, start: tir.Expr, vectors: int) -> None:
    """Ask for what `vectors` vectors from `start` on are in the next block."""
    line = 64 // np.dtype(block.shape.kv_dtype).itemsize
    for i in range(0, vectors * tir.LANES, line):
        tir.prefetch(buffer, start + tir.cast(block.ahead, "int64") + i)


def _exponentiate(block: RowBlock, largest: Sequence[tir.Expr], parts: tirx.Buffer, first: tir.Expr) -> None:
    """Turn scores into weights e^(score - largest) in place, 0 where masked; write their sums and the largest."""
    scores, dims = block.buffers["scores"], block.shape.head_dim
    sums = [tir.registers(tir.LANES) for _ in largest]
    for total in sums:
        tir.store(total, tir.floats(0.0), 0)
    with tir.loop(0, block.groups) as index:
        for g, most in enumerate(largest):
            place = tir.bind(g * BLOCK + index * tir.LANES)
            power = exp(block.writer, tir.load(scores, place) - tir.splat(most))
            power = tir.bind(tirx.Select(_inside(block, index), power, tir.floats(0.0)))
            tir.store(scores, power, place)
            tir.store(sums[g], tir.load(sums[g], 0) + power, 0)
    for g, most in enumerate(largest):
        part = tir.bind(first + g * part_floats(block.shape))
        tir.store(parts, tir.load(sums[g], 0), part + dims)
        tir.store(parts, tir.splat(most), part + dims + tir.LANES)


def _weigh_values(block: RowBlock, parts: tirx.Buffer, first: tir.Expr) -> None:
    """Add up the values in position order and write the sums, as many columns at a time as registers hold."""
    shape = block.shape
    limit = max(1, block.accumulators // shape.group)
    vectors = shape.head_dim // tir.LANES
    at_once = max(n for n in range(1, vectors + 1) if vectors % n == 0 and n <= limit)
    # A position that is not seen may hold anything, also what a weight of 0 does not make 0.
    in_place = tir.bind(op.min(op.max(block.gather_start, block.first), block.stop))
    for column in range(0, vectors, at_once):
        sums = [tir.registers(at_once * tir.LANES) for _ in range(shape.group)]
        for total in sums:
            for v in range(at_once):
                tir.store(total, tir.floats(0.0), v * tir.LANES)
        with tir.loop(block.first, in_place) as position:
            _add_value(block, position, position + block.turned, column, sums)
        with tir.loop(in_place, block.stop) as position:
            _add_value(block, position, tir.bind(block.slot(position)), column, sums)
        for g, total in enumerate(sums):
            for v in range(at_once):
                place = first + g * part_floats(shape) + (column + v) * tir.LANES
                tir.store(parts, tir.load(total, v * tir.LANES), place)


def _add_value(
    block: RowBlock, position: tir.Expr, slot: tir.Expr, column: int, sums: Sequence[tirx.Buffer]
) -> None:
    """Add one position's value, from vector `column` on, times each head's weight."""
    shape, count = block.shape, int(sums[0].shape[0]) // tir.LANES
    start = tir.bind(block.base + tir.cast(slot, "int64") * shape.head_dim + column * tir.LANES)
    weights = [
        tir.splat(tir.bind(block.buffers["scores"][g * BLOCK + position - block.start]))
        for g in range(shape.group)
    ]
    _prefetch(block, block.buffers["values"], start, count)
    for v in range(count):
        value = tir.load(block.buffers["values"], start + v * tir.LANES)
        value = tir.bind(block.writer.to_floats(value))
        for g, total in enumerate(sums):
            at = v * tir.LANES
            tir.store(total, block.writer.multiply_add(weights[g], value, tir.load(total, at)), at)


@dataclass(frozen=True)
class RowParts:
    """The parts of one head of one row: `count` of them from element `first` of `buffer` on, `stride` apart."""

    buffer: tirx.Buffer
    first: tir.Expr
    stride: tir.Expr
    count: tir.Expr

    def place(self, index: tir.Expr | int) -> tir.Expr:
        """Index of a part's first element."""
        return self.first + tir.cast(index, "int64") * self.stride


def merge_parts(
    writer: tir.KernelWriter, shape: AttentionShape, parts: RowParts, outputs: Sequence[str], start: tir.Expr
) -> None:
    """Put a row's parts together in block order and write the head's output at element `start`."""
    vectors, dims, buffer = shape.head_dim // tir.LANES, shape.head_dim, parts.buffer
    largest, total = tir.registers(tir.LANES), tir.registers(tir.LANES)
    tir.store(largest, tir.floats(_MASKED), 0)
    with tir.loop(0, parts.count) as index:
        most = tir.load(buffer, parts.place(index) + dims + tir.LANES)
        tir.store(largest, writer.maximum(tir.load(largest, 0), most), 0)
    sums = [tir.registers(tir.LANES) for _ in range(vectors)]
    for vector in (total, *sums):
        tir.store(vector, tir.floats(0.0), 0)
    factors = tir.registers(tir.LANES)
    with tir.loop(0, tirx.floordiv(parts.count + (tir.LANES - 1), tir.LANES)) as step:
        begin = tir.bind(step * tir.LANES)
        for lane in range(tir.LANES):
            index = op.min(begin + lane, parts.count - 1)
            tir.store_one(factors, buffer[parts.place(index) + dims + tir.LANES], lane)
        tir.store(factors, exp(writer, tir.load(factors, 0) - tir.load(largest, 0)), 0)
        with tir.loop(0, op.min(parts.count - begin, tir.LANES)) as lane:
            place, factor = tir.bind(parts.place(begin + lane)), tir.splat(factors[lane])
            for vector, offset in zip((*sums, total), range(0, dims + tir.LANES, tir.LANES), strict=True):
                part = tir.load(buffer, place + offset)
                tir.store(vector, writer.multiply_add(factor, part, tir.load(vector, 0)), 0)
    inverse = tir.bind(tirx.const(1.0, "float32") / tir.ordered_sum(tir.load(total, 0)))
    results = [tir.bind(tir.load(vector, 0) * tir.splat(inverse)) for vector in sums]
    if len(outputs) == 1:
        for v, result in enumerate(results):
            tir.store(writer.named["out"], result, start + v * tir.LANES)
        return
    rows = QuantizedRows(*(writer.named[name] for name in outputs))
    for v in range(0, vectors, 2):
        quantize_group(writer, (results[v], results[v + 1]), rows, start + v // 2 * GROUP)
