"""What a matmul on a device does with its sums: the forms of `schedules/epilogues.py` for a workgroup."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import MappingProxyType

from tvm import tirx
from tvm.tirx import op

from forerun.compiler import tir
from forerun.compiler.gpu.outputs import RowPiece, write_rows
from forerun.compiler.gpu.writer import GpuWriter, unsigned
from forerun.compiler.schedules.epilogues import BlockMaxima, Epilogue, ListedBlocks, StoreColumns, SwiGlu
from forerun.compiler.tir import LANES, Expr
from forerun.compiler.vector_math import ACTIVATIONS, GROUP


@dataclass(frozen=True)
class TileSums:
    """The finished sums of a workgroup: `rows` × `columns` from the call's row `first_row` and column `first_column`.

    `total(item)` is number `item` of them, row by row; of a matrix of `blocks` blocks of 16 columns. `when_mine()`
    opens what runs only where these columns are there and this launch is for them.
    """

    rows: int
    columns: int
    first_row: Expr
    first_column: Expr
    blocks: int
    total: Callable[[Expr], Expr]
    when_mine: Callable[[], AbstractContextManager[object]]


def end_matmul(writer: GpuWriter, epilogue: Epilogue, sums: TileSums) -> None:
    """Emit what the epilogue does with the sums."""
    _ENDS[type(epilogue)](writer, epilogue, sums)


def _in_shared(writer: GpuWriter, epilogue: Epilogue, sums: TileSums, columns: int) -> tirx.Buffer:
    """Bring the sums together in shared memory, [rows, columns], with the bias of a matrix of `columns` columns."""
    shared = writer.shared(sums.rows * sums.columns)
    with writer.items(sums.rows * sums.columns) as item:
        value = sums.total(item)
        if getattr(epilogue, "bias", False):
            column = sums.first_column + tirx.floormod(item, sums.columns)
            value = value + writer.named["bias"][op.min(column, columns - 1)]
        tir.store_one(shared, value, item)
    writer.meet()
    return shared


def _store(writer: GpuWriter, epilogue: Epilogue, sums: TileSums) -> None:
    assert isinstance(epilogue, StoreColumns)
    with writer.items(sums.rows * sums.columns) as item:
        row = tir.bind(sums.first_row + tirx.floordiv(item, sums.columns))
        column = tir.bind(sums.first_column + tirx.floormod(item, sums.columns))
        with tir.when(tirx.all(row < writer.rows, column < epilogue.columns)):
            value, out = sums.total(item), writer.named["out"]
            value = value + writer.named["bias"][column] if epilogue.bias else value
            place = tir.bind(row * epilogue.stride + epilogue.first_column + column)
            tir.store_one(out, out[place] + value if epilogue.add else value, place)


def _gate(writer: GpuWriter, epilogue: Epilogue, sums: TileSums) -> None:
    assert isinstance(epilogue, SwiGlu)
    first = tir.bind(tirx.floordiv(sums.first_column, 2))
    shared, gated = _in_shared(writer, epilogue, sums, 0), writer.shared(sums.rows * GROUP)
    with writer.items(sums.rows * GROUP) as item:
        place = tirx.floordiv(item, GROUP) * sums.columns + tirx.floormod(item, GROUP)
        gate = tir.bind(shared[place])
        tir.store_one(gated, ACTIVATIONS[epilogue.activation](writer, gate) * shared[place + GROUP], item)
    writer.meet()
    piece = RowPiece(sums.rows, GROUP, sums.first_row, epilogue.columns, first)
    with sums.when_mine():
        write_rows(writer, lambda item: gated[item], piece)


def _maxima(writer: GpuWriter, epilogue: Epilogue, sums: TileSums) -> None:
    assert isinstance(epilogue, BlockMaxima)
    shared, blocks = _in_shared(writer, epilogue, sums, epilogue.columns), sums.columns // LANES
    with writer.items(sums.rows * blocks) as item:
        row = tir.bind(sums.first_row + tirx.floordiv(item, blocks))
        block = tir.bind(tirx.floordiv(sums.first_column, LANES) + tirx.floormod(item, blocks))
        with tir.when(tirx.all(row < writer.rows, block < sums.blocks)):
            columns = epilogue.columns - block * LANES
            largest = _largest(writer, shared, item * LANES, columns)
            tir.store_one(writer.named["out"], largest, row * sums.blocks + block)


def _largest(writer: GpuWriter, values: tirx.Buffer, start: Expr, count: Expr) -> Expr:
    """Return the largest of up to 16 values, of which there is one at least."""
    largest = writer.own(1)
    tir.store_one(largest, _without_nan(values[start]), 0)
    for lane in range(1, LANES):
        value = _without_nan(values[start + lane])
        with tir.when(tirx.all(lane < count, value > largest[0])):
            tir.store_one(largest, value, 0)
    return largest[0]


def _without_nan(value: Expr) -> Expr:
    """Return the number, infinity for a NaN: by its bits, since devices may assume that there is none."""
    bits = tir.bind(op.reinterpret("uint32", value))
    is_nan = op.bitwise_and(bits, unsigned(0x7FFFFFFF)) > unsigned(0x7F800000)
    return tir.bind(op.reinterpret("float32", tir.bind(tirx.Select(is_nan, unsigned(0x7F800000), bits))))


def _list(writer: GpuWriter, epilogue: Epilogue, sums: TileSums) -> None:
    assert isinstance(epilogue, ListedBlocks)
    shared = _in_shared(writer, epilogue, sums, sums.blocks * LANES)
    with sums.when_mine(), writer.items(LANES) as lane:
        tir.store_one(writer.named["out"], shared[lane], writer.x * LANES + lane)


_ENDS: Mapping[type, Callable[[GpuWriter, Epilogue, TileSums], None]] = MappingProxyType(
    {StoreColumns: _store, SwiGlu: _gate, BlockMaxima: _maxima, ListedBlocks: _list}
)
