"""The attention kernels: the same arithmetic, shared among threads in two ways.

Few rows, long contexts: threads share the blocks of positions (`attention_parts`), meet, and put the parts together
(`attention_merge`). Many rows: threads share rows and put the parts of theirs together at once (`attention_rows`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tvm import tirx
from tvm.tirx import op

from forerun.compiler import tir
from forerun.compiler.schedules.attention_block import (
    RowParts,
    merge_parts,
    open_block,
    part_floats,
    write_part,
)
from forerun.compiler.schedules.plan import ALONE_ROWS
from forerun.compiler.schedules.rope import BLOCK, AttentionShape
from forerun.compiler.vector_math import FLOAT_OUTPUTS, QUANTIZED_OUTPUTS
from forerun.targets import Target
from forerun.targets.target import Arithmetic

# Rows that one thread takes through a block together, while the block is in its cache.
_ROWS_TOGETHER = 8


@dataclass(frozen=True)
class AttentionSpace:
    """Memory that the kernels want, in bytes.

    Private to a thread: `tail_bytes` gathered keys, `scores_bytes`, and for the parts of `attention_rows`
    `parts_bytes` and as much more for each position of the capacity. `shared_bytes` holds those of
    `attention_parts`.
    """

    tail_bytes: int
    scores_bytes: int
    parts_bytes: int
    parts_bytes_per_position: int
    shared_bytes: int


def attention_space(shape: AttentionShape, element_bytes: int, context_length: int) -> AttentionSpace:
    """Return the memory for an attention module; shared parts are for at most ALONE_ROWS rows."""
    block = _ROWS_TOGETHER * shape.group * part_floats(shape) * 4
    shared = ALONE_ROWS * shape.heads * part_floats(shape) * 4 * -(-context_length // BLOCK)
    return AttentionSpace(
        BLOCK * shape.head_dim * element_bytes, shape.group * BLOCK * 4, block, -(-block // BLOCK), shared
    )


def _accumulators(target: Target) -> int:
    """Vectors of sums for which the target has registers, with some left for the operands."""
    return max(1, target.vector_registers * 3 // 4)


def _outputs(quantized: bool) -> dict[str, str]:
    return dict(QUANTIZED_OUTPUTS if quantized else FLOAT_OUTPUTS)


@contextmanager
def _writing(
    name: str, arithmetic: Arithmetic, shape: AttentionShape, outputs: dict[str, str]
) -> Iterator[tir.KernelWriter]:
    inputs = {"queries": "float32", "positions": "int32", "sequences": "int32", "gather_start": "int32"}
    inputs |= {"gather": "int32", "keys": shape.kv_dtype, "values": shape.kv_dtype}
    written = {"tail": shape.kv_dtype, "scores": "float32", "parts": "float32", **outputs}
    with tir.writing(
        name, arithmetic, inputs, written, {"capacity": "int64", "gather_stride": "int64"}
    ) as writer:
        yield writer


def _blocks(length: tir.Expr) -> tir.Expr:
    return tirx.floordiv(length + (BLOCK - 1), BLOCK)


def _seen(shape: AttentionShape, position: tir.Expr) -> tir.Expr:
    """Return how many positions a row sees."""
    return op.min(position + 1, shape.window) if shape.window else position + 1


def _first_block(shape: AttentionShape, position: tir.Expr) -> tir.Expr | int:
    """Return the first block of positions of which a row sees any."""
    if not shape.window:
        return 0
    return tirx.floordiv(op.max(position + 1 - shape.window, 0), BLOCK)


def _part_count(shape: AttentionShape, position: tir.Expr) -> tir.Expr:
    """Return the number of blocks that a row sees something of."""
    return _blocks(position + 1) - _first_block(shape, position)


@dataclass(frozen=True)
class _Share:
    """Items dealt out in order: each thread gets those whose middle lies in its part of the total cost."""

    begin: tir.Expr
    end: tir.Expr
    passed: tirx.Buffer  # cost of the items so far

    @contextmanager
    def item(self, cost: tir.Expr) -> Iterator[None]:
        """Run the block if the next item, of this cost (0 for none), is this thread's."""
        middle = tir.bind(self.passed[0] + tirx.floordiv(tir.cast(cost, "int64"), 2))
        tir.store_one(self.passed, self.passed[0] + tir.cast(cost, "int64"), 0)
        with tir.when(tirx.all(cost > 0, middle >= self.begin, middle < self.end)):
            yield


@dataclass(frozen=True)
class _Span:
    """What some rows see: `seen` positions in all, in blocks `first` … `stop` - 1."""

    seen: tir.Expr
    first: tir.Expr | int
    stop: tir.Expr


def _span(
    writer: tir.KernelWriter, shape: AttentionShape, begin: tir.Expr | int, end: tir.Expr, dtype: str
) -> _Span:
    """Go through rows begin … end-1; `dtype` is wide enough for what they see together."""
    seen, first, longest = tir.registers(1, dtype), tir.registers(1, "int32"), tir.registers(1, "int32")
    tir.store_one(seen, tirx.const(0, dtype), 0)
    tir.store_one(first, tirx.const(2**31 - 1, "int32"), 0)
    tir.store_one(longest, tirx.const(0, "int32"), 0)
    with tir.loop(begin, end) as row:
        position = tir.bind(writer.named["positions"][row])
        tir.store_one(seen, seen[0] + tir.cast(_seen(shape, position), dtype), 0)
        tir.store_one(longest, op.max(longest[0], position + 1), 0)
        if shape.window:
            tir.store_one(first, op.min(first[0], _first_block(shape, position)), 0)
    return _Span(tir.bind(seen[0]), tir.bind(first[0]) if shape.window else 0, tir.bind(_blocks(longest[0])))


def _share(writer: tir.KernelWriter, shape: AttentionShape) -> tuple[_Share, _Span]:
    """Return the sharing by positions attended to, and what all rows see."""
    span = _span(writer, shape, 0, writer.rows, "int64")
    passed = tir.registers(1, "int64")
    tir.store_one(passed, tirx.const(0, "int64"), 0)
    begin, end = writer.share(tir.bind(span.seen * shape.kv_heads))
    return _Share(begin, end, passed), span


def attention_parts(name: str, target: Target, shape: AttentionShape) -> tir.Kernel:
    """Return the kernel that writes parts [blocks, rows, H, part], shared out by key/value head, block and row.

    Parameters of the kernel: queries [rows, H·d] already scaled, positions, sequences, gather_start, gather, keys,
    values, tail and scores (private), parts; capacity, gather_stride.
    """
    with _writing(name, target.arithmetic, shape, {}) as writer:
        share, span = _share(writer, shape)
        with (
            tir.loop(0, shape.kv_heads) as head,
            tir.loop(span.first, span.stop) as index,
            tir.loop(0, writer.rows) as row,
        ):
            start, position = tir.bind(index * BLOCK), tir.bind(writer.named["positions"][row])
            begin = op.max(start, position + 1 - shape.window) if shape.window else start
            seen = tir.bind(op.min(position + 1, start + BLOCK) - begin)
            with share.item(op.max(seen, 0)):
                own = index - _first_block(shape, position)
                place = (own * writer.rows + row) * shape.heads + head * shape.group
                first = tir.bind(tir.cast(place, "int64") * part_floats(shape))
                block = open_block(writer, shape, _accumulators(target), row, head, start)
                write_part(block, writer.named["parts"], first)
    return writer.kernel()


def attention_merge(name: str, target: Target, shape: AttentionShape, quantized: bool) -> tir.Kernel:
    """Return the kernel that puts the parts of `attention_parts` together: parts, positions, outputs."""
    outputs = _outputs(quantized)
    with tir.writing(name, target.arithmetic, {"parts": "float32", "positions": "int32"}, outputs) as writer:
        begin, end = writer.share(writer.rows * shape.heads)
        with tir.loop(begin, end) as item:
            first = tir.bind(tir.cast(item, "int64") * part_floats(shape))
            stride = tir.bind(tir.cast(writer.rows * (shape.heads * part_floats(shape)), "int64"))
            row = tirx.floordiv(item, shape.heads)
            count = tir.bind(_part_count(shape, writer.named["positions"][row]))
            parts = RowParts(writer.named["parts"], first, stride, count)
            merge_parts(writer, shape, parts, list(outputs), tir.bind(item * shape.head_dim))
    return writer.kernel()


def attention_rows(name: str, target: Target, shape: AttentionShape, quantized: bool) -> tir.Kernel:
    """Return the kernel that attends and puts parts together, shared out by key/value head and group of rows.

    Parameters of the kernel: those of `attention_parts`, with private parts, and outputs before the capacity.
    """
    outputs = _outputs(quantized)
    with _writing(name, target.arithmetic, shape, outputs) as writer:
        share, _ = _share(writer, shape)
        groups = tirx.floordiv(writer.rows + (_ROWS_TOGETHER - 1), _ROWS_TOGETHER)
        with tir.loop(0, shape.kv_heads) as head, tir.loop(0, groups) as index:
            begin = tir.bind(index * _ROWS_TOGETHER)
            end = tir.bind(op.min(begin + _ROWS_TOGETHER, writer.rows))
            span = _span(writer, shape, begin, end, "int32")
            with share.item(span.seen):
                _attend_rows(writer, shape, _accumulators(target), head, (begin, end), span)
                _merge_rows(writer, shape, head, (begin, end), list(outputs))
    return writer.kernel()


def _attend_rows(
    writer: tir.KernelWriter,
    shape: AttentionShape,
    accumulators: int,
    head: tir.Expr,
    rows: tuple[tir.Expr, tir.Expr],
    span: _Span,
) -> None:
    """Write the private parts [blocks, rows together, group, part] of a few rows for one key/value head."""
    begin, end = rows
    with tir.loop(span.first, span.stop) as index, tir.loop(begin, end) as row:
        start, position = tir.bind(index * BLOCK), tir.bind(writer.named["positions"][row])
        own = index - _first_block(shape, position)
        with tir.when(tirx.all(start <= position, own >= 0) if shape.window else start <= position):
            place = (own * _ROWS_TOGETHER + row - begin) * shape.group
            first = tir.bind(tir.cast(place, "int64") * part_floats(shape))
            block = open_block(writer, shape, accumulators, row, head, start)
            write_part(block, writer.named["parts"], first)


def _merge_rows(
    writer: tir.KernelWriter,
    shape: AttentionShape,
    head: tir.Expr,
    rows: tuple[tir.Expr, tir.Expr],
    outputs: list[str],
) -> None:
    begin, end = rows
    stride = tirx.const(_ROWS_TOGETHER * shape.group * part_floats(shape), "int64")
    with tir.loop(begin, end) as row, tir.loop(0, shape.group) as g:
        place = (row - begin) * shape.group + g
        first = tir.bind(tir.cast(place, "int64") * part_floats(shape))
        count = tir.bind(_part_count(shape, writer.named["positions"][row]))
        query = ((row * shape.kv_heads + head) * shape.group + g) * shape.head_dim
        parts = RowParts(writer.named["parts"], first, stride, count)
        merge_parts(writer, shape, parts, outputs, tir.bind(query))
