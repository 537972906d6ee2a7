"""Rows of outputs, quantized with the CPU's arithmetic: a thread does a group of 32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from tvm import tirx
from tvm.tirx import op

from forerun.compiler import tir
from forerun.compiler.gpu.words import QuantizedWords
from forerun.compiler.gpu.writer import GpuWriter, word_of
from forerun.compiler.tir import Expr
from forerun.compiler.vector_math import GROUP, HALF


@dataclass(frozen=True)
class RowPiece:
    """Values [rows, columns] and where they go: rows of the call from `first_row` on, of `row_columns` columns each,
    from `first_column` on. Of several rows those past the call's are left out.
    """

    rows: int
    columns: int | Expr
    first_row: Expr
    row_columns: int
    first_column: Expr | int = 0


def write_rows(writer: GpuWriter, value_at: Callable[[Expr], Expr], piece: RowPiece) -> None:
    """Write values out, quantized where the output is words; `value_at(item)` counts them row by row."""
    step = GROUP if str(writer.named["out"].dtype) == "uint32" else 1
    pieces = piece.columns // step if isinstance(piece.columns, int) else tirx.floordiv(piece.columns, step)
    with writer.items(piece.rows * pieces) as item:
        row = tir.bind(piece.first_row + tirx.floordiv(item, pieces))
        with tir.when(row < writer.rows) if piece.rows > 1 else nullcontext():
            column = tir.bind(piece.first_column + tirx.floormod(item, pieces) * step)
            if step == GROUP:
                group = _Group(QuantizedWords(piece.row_columns), row, column)
                _quantize_group(writer, value_at, item * GROUP, group)
            else:
                tir.store_one(writer.named["out"], value_at(item), row * piece.row_columns + column)


@dataclass(frozen=True)
class _Group:
    """Where a group of 32 goes: the row and its first column."""

    words: QuantizedWords
    row: Expr
    column: Expr


def _quantize_group(writer: GpuWriter, value_at: Callable[[Expr], Expr], start: Expr, group: _Group) -> None:
    """Quantize the 32 values from `start` on."""
    scaled, row = None, group.row

    def store(part: str, index: Expr, value: Expr) -> None:
        group.words.store(writer.named["out"], part, row, index, value)

    for half in range(2):
        floats = [tir.bind(value_at(start + half * HALF + i)) for i in range(HALF)]
        scale, high, wide = _quantize_half(writer, floats)
        place = tir.bind(tirx.floordiv(group.column, HALF) + half)
        low = [wide_one - high_one * 256 for wide_one, high_one in zip(wide, high, strict=True)]
        for word in range(HALF // 4):
            quad = tirx.floordiv(group.column, 4) + half * 4 + word
            store("values", quad, word_of(high[word * 4 : word * 4 + 4]))
            store("low", quad, word_of(low[word * 4 : word * 4 + 4]))
        total = tir.bind(_sum(high))
        store("scale", place, scale)
        store("sum", place, total)
        store("wide_sum", place, _sum(wide))
        total = tir.bind(tir.cast(total, "float32"))
        scaled = tir.bind(scale * total if scaled is None else writer.multiply_add(scale, total, scaled))
    store("scaled_sum", tirx.floordiv(group.column, GROUP), scaled)


def _quantize_half(writer: GpuWriter, floats: Sequence[Expr]) -> tuple[Expr, list[Expr], list[Expr]]:
    """Return scale, high bytes and 16-bit numbers of 16 values."""
    largest = _magnitude(floats[0])
    for value in floats[1:]:
        largest = tir.bind(writer.maximum(largest, _magnitude(value)))
    limit, zero = tirx.const(127.0 * 256.0, "float32"), tirx.const(0.0, "float32")
    # Values too small for the reciprocal to be finite are stored as zeros.
    known = largest > tirx.const(1e-30, "float32")
    safe = tirx.Select(known, largest, tirx.const(1.0, "float32"))
    inverse = tir.bind(tirx.Select(known, limit / safe, zero))
    wide = [tir.bind(tir.cast(writer.round_even(value * inverse), "int32")) for value in floats]
    high = [
        tir.bind(op.shift_right(value + tirx.const(128, "int32"), tirx.const(8, "int32"))) for value in wide
    ]
    return tir.bind(largest * tirx.const(1.0 / 127.0, "float32")), high, wide


def _magnitude(value: Expr) -> Expr:
    mask = tirx.const(0x7FFFFFFF, "uint32")
    return tir.bind(
        op.reinterpret("float32", tir.bind(op.bitwise_and(op.reinterpret("uint32", value), mask)))
    )


def _sum(values: Sequence[Expr]) -> Expr:
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total
