"""Attention of few rows over the cache, with keys taken in position order.

One item of work is (row, key/value head) with all query heads that share it. A key has the same place in every
reduction whether it is committed, staged in a chain or gathered from a tree: scores are computed in blocks of 16
positions, the softmax sum runs over blocks in order with one lane a position, values are added position by
position. So a row's result does not depend on the tree around it.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx
from tvm.tirx import op

from forerun.compiler import tir
from forerun.compiler.schedules.rope import AttentionShape, key_block_start
from forerun.compiler.vector_math import (
    FLOAT_OUTPUTS,
    GROUP,
    QUANTIZED_OUTPUTS,
    QuantizedRows,
    exp,
    quantize_group,
)

_MASKED = -3.0e38  # finite: the difference of two masked scores must not be NaN
_PARTIAL_SUMS = 2  # independent chains per score, added in a fixed order: hides the latency of multiply-add


def tail_elements(shape: AttentionShape, max_gather: int) -> int:
    """Return the cache elements of private scratch for gathered keys: whole blocks plus the partial one."""
    return (max_gather // tir.LANES + 2) * tir.LANES * shape.head_dim


def attention_blocked(name: str, fma: bool, shape: AttentionShape, quantized: bool) -> tir.Kernel:
    """Return the kernel out[row] = softmax(q · K) · V over the row's positions 0 … positions[row].

    Parameters of the kernel: queries [rows, H·d] already scaled, positions, sequences, gather_start, gather, keys,
    values, tail (private, `tail_elements`), scores (private, [group, C] float32), outputs; capacity, gather_stride.
    """
    outputs = QUANTIZED_OUTPUTS if quantized else FLOAT_OUTPUTS
    inputs = {"queries": "float32", "positions": "int32", "sequences": "int32", "gather_start": "int32"}
    inputs |= {"gather": "int32", "keys": shape.kv_dtype, "values": shape.kv_dtype}
    written = {"tail": shape.kv_dtype, "scores": "float32", **outputs}
    with tir.writing(name, fma, inputs, written, {"capacity": "int64", "gather_stride": "int64"}) as writer:
        buffers = writer.named
        begin, end = writer.share(writer.rows * shape.kv_heads)
        with tir.loop(begin, end) as item:
            row = tir.bind(tirx.floordiv(item, shape.kv_heads))
            head = tir.bind(tirx.floormod(item, shape.kv_heads))
            work = _open(writer, shape, buffers, row, head)
            _gather_tail(work)
            passes = shape.group // work.together
            with tir.loop(0, passes) as index:
                first = tir.bind(index * work.together)
                largest = _score(work, first)
                totals = _exponentiate(work, largest)
                _weigh_values(work, first, totals, list(outputs))
    return writer.kernel()


@dataclass(frozen=True)
class _Work:
    """One (row, kv head): where its keys and values start, how many keys, and how they are found."""

    writer: tir.KernelWriter
    shape: AttentionShape
    buffers: dict[str, tirx.Buffer]
    row: tir.Expr
    head: tir.Expr
    base: tir.Expr  # first element of this sequence and head, the same for keys and values
    length: tir.Expr  # keys to attend to
    gather_start: tir.Expr  # positions from here on come from gathered slots
    direct_blocks: tir.Expr  # blocks of keys read in place; the rest is copied to the tail
    together: int  # query heads handled in one pass


def _open(
    writer: tir.KernelWriter,
    shape: AttentionShape,
    buffers: dict[str, tirx.Buffer],
    row: tir.Expr,
    head: tir.Expr,
) -> _Work:
    capacity, _ = writer.scalars
    base = tir.bind(key_block_start(shape, capacity, buffers["sequences"][row], head))
    length = tir.bind(buffers["positions"][row] + 1)
    gather_start = tir.bind(buffers["gather_start"][row])
    all_blocks = tirx.floordiv(length + (tir.LANES - 1), tir.LANES)
    in_place = tirx.floordiv(gather_start, tir.LANES)
    direct = tir.bind(op.if_then_else(gather_start >= length, all_blocks, in_place))
    # As many accumulators as leave registers for the operands: 16 vectors of values.
    limit = max(1, min(4, 16 * tir.LANES // shape.head_dim))
    together = max(n for n in range(1, limit + 1) if shape.group % n == 0)
    return _Work(writer, shape, buffers, row, head, base, length, gather_start, direct, together)


def _slot(work: _Work, position: tir.Expr) -> tir.Expr:
    """Return the cache slot of a position at or past gather_start."""
    _, stride = work.writer.scalars
    return work.buffers["gather"][
        tir.cast(work.row, "int64") * stride + tir.cast(position - work.gather_start, "int64")
    ]


def _gather_tail(work: _Work) -> None:
    """Copy the keys past the direct blocks into private blocks of the same layout."""
    keys, tail, dims = work.buffers["keys"], work.buffers["tail"], work.shape.head_dim
    begin = tir.bind(work.direct_blocks * tir.LANES)
    with tir.loop(begin, op.max(work.length, begin)) as position:
        slot = tir.registers(1, "int32")
        tir.store_one(slot, position, 0)
        with tir.when(position >= work.gather_start):
            tir.store_one(slot, _slot(work, position), 0)
        source = tir.bind(work.base + tir.cast(_key_offset(work.shape, slot[0]), "int64"))
        target = tir.bind(_key_offset(work.shape, position - begin))
        with tir.loop(0, dims) as i:
            tir.store_one(tail, keys[source + tir.cast(i * tir.LANES, "int64")], target + i * tir.LANES)


def _key_offset(shape: AttentionShape, slot: tir.Expr) -> tir.Expr:
    return tirx.floordiv(slot, tir.LANES) * (shape.head_dim * tir.LANES) + tirx.floormod(slot, tir.LANES)


def _score(work: _Work, first: tir.Expr) -> tirx.Buffer:
    """Write the scores of `together` heads and return each head's largest, as registers [together]."""
    blocks = tir.bind(tirx.floordiv(work.length + (tir.LANES - 1), tir.LANES))
    running = tir.registers(work.together * tir.LANES)
    for g in range(work.together):
        tir.store(running, tir.floats(_MASKED), g * tir.LANES)
    block_elements = work.shape.head_dim * tir.LANES
    with tir.loop(0, work.direct_blocks) as block:
        start = tir.bind(work.base + tir.cast(block * block_elements, "int64"))
        _score_block(work, first, work.buffers["keys"], start, block, running)
    with tir.loop(work.direct_blocks, op.max(blocks, work.direct_blocks)) as block:
        start = tir.bind((block - work.direct_blocks) * block_elements)
        _score_block(work, first, work.buffers["tail"], start, block, running)
    largest = tir.registers(work.together)
    for g in range(work.together):
        tir.store_one(largest, tir.lanes_max(tir.load(running, g * tir.LANES)), g)
    return largest


def _query_start(work: _Work, head: tir.Expr) -> tir.Expr:
    return ((work.row * work.shape.kv_heads + work.head) * work.shape.group + head) * work.shape.head_dim


def _score_start(work: _Work, g: int) -> tir.Expr:
    capacity, _ = work.writer.scalars
    return capacity * g


def _score_block(
    work: _Work, first: tir.Expr, keys: tirx.Buffer, start: tir.Expr, block: tir.Expr, running: tirx.Buffer
) -> None:
    """Score 16 positions for each head; positions past the length are masked."""
    chains = tir.registers(work.together * _PARTIAL_SUMS * tir.LANES)
    for chain in range(work.together * _PARTIAL_SUMS):
        tir.store(chains, tir.floats(0.0), chain * tir.LANES)
    query = [tir.bind(_query_start(work, first + g)) for g in range(work.together)]
    with tir.loop(0, work.shape.head_dim // _PARTIAL_SUMS) as step:
        for part in range(_PARTIAL_SUMS):
            i = step * _PARTIAL_SUMS + part
            column = tir.bind(tir.cast(tir.load(keys, start + i * tir.LANES), "float32x16"))
            for g in range(work.together):
                at = (g * _PARTIAL_SUMS + part) * tir.LANES
                factor = tir.splat(work.buffers["queries"][query[g] + i])
                tir.store(chains, work.writer.multiply_add(column, factor, tir.load(chains, at)), at)
    position = tir.bind(block * tir.LANES)
    inside = tir.ramp(position) < tir.splat(work.length)
    for g in range(work.together):
        at = g * _PARTIAL_SUMS * tir.LANES
        total = tir.load(chains, at) + tir.load(chains, at + tir.LANES)
        score = tir.bind(tirx.Select(inside, total, tir.floats(_MASKED)))
        tir.store(work.buffers["scores"], score, _score_start(work, g) + tir.cast(position, "int64"))
        tir.store(running, tir.maximum(tir.load(running, g * tir.LANES), score), g * tir.LANES)


def _exponentiate(work: _Work, largest: tirx.Buffer) -> tirx.Buffer:
    """Turn scores into e^(score - largest) in place and return the sums, as registers [together]."""
    blocks = tir.bind(tirx.floordiv(work.length + (tir.LANES - 1), tir.LANES))
    scores, sums = work.buffers["scores"], tir.registers(work.together * tir.LANES)
    totals = tir.registers(work.together)
    for g in range(work.together):
        tir.store(sums, tir.floats(0.0), g * tir.LANES)
    with tir.loop(0, blocks) as block:
        for g in range(work.together):
            place = tir.bind(_score_start(work, g) + tir.cast(block * tir.LANES, "int64"))
            # A masked score gives 1e-38, which is lost beside the largest one's 1.
            power = exp(work.writer, tir.load(scores, place) - tir.splat(largest[g]))
            tir.store(scores, power, place)
            tir.store(sums, tir.load(sums, g * tir.LANES) + power, g * tir.LANES)
    for g in range(work.together):
        tir.store_one(totals, tir.ordered_sum(tir.load(sums, g * tir.LANES)), g)
    return totals


def _weigh_values(work: _Work, first: tir.Expr, totals: tirx.Buffer, outputs: list[str]) -> None:
    """Add up the values in position order and write the heads' outputs."""
    vectors = work.shape.head_dim // tir.LANES
    sums = tir.registers(work.together * vectors * tir.LANES)
    for i in range(work.together * vectors):
        tir.store(sums, tir.floats(0.0), i * tir.LANES)
    in_place = tir.bind(op.min(work.gather_start, work.length))
    with tir.loop(0, in_place) as position:
        _add_value(work, position, position, sums)
    with tir.loop(in_place, work.length) as position:
        _add_value(work, position, tir.bind(_slot(work, position)), sums)
    for g in range(work.together):
        factor = tir.splat(tir.bind(tirx.const(1.0, "float32") / totals[g]))
        start = tir.bind(_query_start(work, first + g))
        parts = [tir.bind(tir.load(sums, (g * vectors + v) * tir.LANES) * factor) for v in range(vectors)]
        if len(outputs) == 1:
            for v, part in enumerate(parts):
                tir.store(work.buffers["out"], part, start + v * tir.LANES)
            continue
        rows = QuantizedRows(*(work.buffers[name] for name in outputs))
        for v in range(0, vectors, 2):
            quantize_group(work.writer, (parts[v], parts[v + 1]), rows, start + v // 2 * GROUP)


def _add_value(work: _Work, position: tir.Expr, slot: tir.Expr, sums: tirx.Buffer) -> None:
    vectors = work.shape.head_dim // tir.LANES
    start = tir.bind(work.base + tir.cast(slot, "int64") * work.shape.head_dim)
    weights = [
        tir.splat(tir.bind(work.buffers["scores"][_score_start(work, g) + tir.cast(position, "int64")]))
        for g in range(work.together)
    ]
    for v in range(vectors):
        value = tir.load(work.buffers["values"], start + v * tir.LANES)
        value = tir.bind(tir.cast(value, "float32x16"))
        for g in range(work.together):
            at = (g * vectors + v) * tir.LANES
            tir.store(sums, work.writer.multiply_add(weights[g], value, tir.load(sums, at)), at)
