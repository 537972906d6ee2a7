"""What a matmul does with its sums: store them, add them to the residual stream, or gate and quantize them.

An epilogue sees 16 (store, add) or 64 (SwiGLU) finished output columns of a tile of rows at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import tvm
from tvm import tirx
from tvm.tirx import op

from forerun.compiler import tir
from forerun.compiler.vector_math import (
    ACTIVATIONS,
    FLOAT_OUTPUTS,
    GROUP,
    QUANTIZED_OUTPUTS,
    QuantizedRows,
    quantize_group,
)


@dataclass(frozen=True)
class Tile:
    """A tile of finished sums.

    Attributes:
        totals: for each block of the unit, float32 registers [rows, 16].
        rows: rows in the tile; those at or past the call's row count are not written.
        first_row: index of the tile's first row.
        unit: index of the unit, i.e. of `blocks_per_unit` blocks of 16 weight rows.
        place: the same, or where the unit stands in the list of those wanted.
    """

    totals: tuple[tirx.Buffer, ...]
    rows: int
    first_row: tir.Expr
    unit: tir.Expr
    place: tir.Expr


class _Sums:
    """What the epilogues that hand sums on, one block at a time, have in common."""

    bias: bool

    blocks_per_unit = 1
    listed: str | None = None  # every unit is computed

    @property
    def inputs(self) -> Mapping[str, str]:
        """The pointers that this epilogue reads."""
        return {"bias": "float32"} if self.bias else {}

    @property
    def outputs(self) -> Mapping[str, str]:
        """The pointers that it writes."""
        return FLOAT_OUTPUTS

    def _with_bias(self, buffers: dict[str, tirx.Buffer], totals: tir.Expr, column: tir.Expr) -> tir.Expr:
        """Return 16 sums, plus the bias of the columns from `column` if there is one."""
        return totals + tir.load(buffers["bias"], column) if self.bias else totals


@dataclass(frozen=True)
class StoreColumns(_Sums):
    """out[row, first_column + column] = sum (+ bias), or += with `add`."""

    columns: int
    stride: int
    first_column: int
    bias: bool
    add: bool

    def write(self, writer: tir.KernelWriter, buffers: dict[str, tirx.Buffer], tile: Tile) -> None:
        """Emit the stores of one tile."""
        column = tir.bind(tile.unit * tir.LANES)
        for m in range(tile.rows):
            row = tile.first_row + m
            with tir.when(row < writer.rows):
                start = row * self.stride + self.first_column + column
                self._write_row(buffers, tile.totals[0], m, start, column)

    def _write_row(
        self, buffers: dict[str, tirx.Buffer], totals: tirx.Buffer, m: int, start: tir.Expr, column: tir.Expr
    ) -> None:
        out, tail = buffers["out"], self.columns % tir.LANES
        whole = column + tir.LANES <= self.columns
        with tir.when(whole if tail else tvm.tirx.const(True, "bool")):
            value = self._with_bias(buffers, tir.load(totals, m * tir.LANES), column)
            if self.add:
                value = tir.load(out, start) + value
            tir.store(out, value, start)
        if not tail:
            return
        # The last block reaches past the matrix: its padding columns are computed but have no place.
        with tir.when(tirx.Not(whole)), tir.loop(0, tail) as lane:
            value = totals[m * tir.LANES + lane]
            if self.bias:
                value = value + buffers["bias"][column + lane]
            if self.add:
                value = out[start + lane] + value
            tir.store_one(out, value, start + lane)


@dataclass(frozen=True)
class SwiGlu:
    """activation(gate) · up, for weights whose rows alternate 32 of gate, 32 of up; stored quantized or as float."""

    columns: int
    quantized: bool
    activation: str = "silu"

    blocks_per_unit = 4
    listed = None

    @property
    def inputs(self) -> Mapping[str, str]:
        """The pointers that this epilogue reads."""
        return {}

    @property
    def outputs(self) -> Mapping[str, str]:
        """The pointers that it writes."""
        return QUANTIZED_OUTPUTS if self.quantized else FLOAT_OUTPUTS

    def write(self, writer: tir.KernelWriter, buffers: dict[str, tirx.Buffer], tile: Tile) -> None:
        """Emit the gating of one tile: 32 output columns of each row."""
        with tir.loop(0, tile.rows) as m:
            row = tile.first_row + m
            with tir.when(row < writer.rows):
                halves = tuple(self._gated(writer, tile, m, half) for half in range(2))
                start = row * self.columns + tile.unit * GROUP
                if self.quantized:
                    out = QuantizedRows(*(buffers[name] for name in self.outputs))
                    quantize_group(writer, halves, out, start)
                else:
                    for half, value in enumerate(halves):
                        tir.store(buffers["out"], value, start + half * tir.LANES)

    def _gated(self, writer: tir.KernelWriter, tile: Tile, m: tir.Expr, half: int) -> tir.Expr:
        gate = tir.load(tile.totals[half], m * tir.LANES)
        up = tir.load(tile.totals[2 + half], m * tir.LANES)
        return tir.bind(ACTIVATIONS[self.activation](writer, tir.bind(gate)) * up)


@dataclass(frozen=True)
class BlockMaxima(_Sums):
    """out[row, block] = the largest of the block's sums (+ bias), infinity where one is NaN."""

    columns: int
    bias: bool

    def write(self, writer: tir.KernelWriter, buffers: dict[str, tirx.Buffer], tile: Tile) -> None:
        """Emit the maxima of one tile."""
        blocks = -(-self.columns // tir.LANES)
        first = tir.bind(tile.unit * tir.LANES)
        for m in range(tile.rows):
            row = tile.first_row + m
            with tir.when(row < writer.rows):
                totals = tir.load(tile.totals[0], m * tir.LANES)
                value = _without_nan(tir.bind(self._with_bias(buffers, totals, first)))
                if self.columns % tir.LANES:  # lanes past the matrix hold its padding
                    inside = tir.ramp(first) < tir.splat(tirx.const(self.columns, "int32"))
                    value = tirx.Select(inside, value, tir.floats(float("-inf")))
                tir.store_one(buffers["out"], tir.lanes_max(value), row * blocks + tile.unit)


def _without_nan(values: tir.Expr) -> tir.Expr:
    """Return the vector with infinity for every NaN."""
    # By the bits: TVM simplifies x != x to false.
    magnitude = op.bitwise_and(op.reinterpret("int32x16", values), tir.splat(tirx.const(0x7FFFFFFF, "int32")))
    is_nan = magnitude > tir.splat(tirx.const(0x7F800000, "int32"))
    return tirx.Select(is_nan, tir.floats(float("inf")), values)


@dataclass(frozen=True)
class ListedBlocks(_Sums):
    """out[place] = the 16 sums (+ bias) of the block listed there, for the first row."""

    bias: bool

    listed = "items"

    @property
    def inputs(self) -> Mapping[str, str]:
        """The pointers that this epilogue reads."""
        return {"items": "int32", **super().inputs}

    def write(self, writer: tir.KernelWriter, buffers: dict[str, tirx.Buffer], tile: Tile) -> None:
        """Emit the store of one block."""
        value = self._with_bias(buffers, tir.load(tile.totals[0], 0), tile.unit * tir.LANES)
        tir.store(buffers["out"], value, tile.place * tir.LANES)


Epilogue = StoreColumns | SwiGlu | BlockMaxima | ListedBlocks
