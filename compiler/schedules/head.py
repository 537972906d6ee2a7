"""Epilogues of the LM head: bounds on blocks of logits, from the logits or from a screen, and listed blocks.

The screen computes each logit from the upper 6 of a weight's 8 bits and the upper byte of the activations, which is
three quarters of the bytes to read and half of the products, and proves how far off it can be:

    logit - screened = Σ w·x_low + Σ r·x_high,   |…| ≤ ‖w‖·‖x_low‖ + ‖r‖·‖x_high‖   (Cauchy-Schwarz)

with w a row of the dequantized weights, r what the lower 2 bits are to it, and x = x_high + x_low the activations as
they were quantized. ‖w‖ and ‖r‖ are stored a row, rounded up. What float arithmetic rounds off is in the bound too:
either sum adds up one term a group, each step rounding to 2^-24 of at most Σ|w·x| ≤ ‖w‖·‖x‖.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from tvm import tirx
from tvm.tirx import op

from forerun.compiler import tir
from forerun.compiler.schedules.epilogues import Epilogue, Tile
from forerun.compiler.schemes import Scheme
from forerun.compiler.vector_math import FLOAT_OUTPUTS, GROUP, HALF

# Weights of the scheme `symmetric8` less their lower 2 bits; 126 is 128 less what those are on average, rounded.
SCREEN = Scheme("screen6", 6, offset=126)

# Of lengths that are rounded while they are computed: squares, sums over K and roots stay far within this.
_LENGTH_MARGIN = 1.001
# Squares too small for float32 are lost: 2^16 of them are below (1e-18)².
_LENGTH_FLOOR = 1e-18


def row_norms(values: np.ndarray, scale: np.ndarray, residual: bool) -> np.ndarray:
    """Return the Euclidean norms of weight rows, rounded up.

    Args:
        values: int8 [N, K] of scheme `symmetric8`.
        scale: float16 [N, K/32].
        residual: of what the screen leaves out of each weight, instead of the weights.

    Returns:
        float16 [N]; infinity where it is too large for float16, NaN where a scale is.
    """
    whole = values.astype(np.float64)
    if residual:
        unsigned = values.astype(np.int16) + 128
        whole = (unsigned - (unsigned & ~3) - (128 - SCREEN.offset)).astype(np.float64)
    squares = (whole.reshape(len(values), -1, GROUP) ** 2).sum(axis=2) * scale.astype(np.float64) ** 2
    norms = np.sqrt(squares.sum(axis=1)) * (1 + 1e-12)
    with np.errstate(over="ignore"):
        rounded: np.ndarray = norms.astype(np.float16)
    short = rounded.astype(np.float64) < norms
    rounded[short] = np.nextafter(rounded[short], np.float16(np.inf))
    return rounded


@dataclass(frozen=True)
class BlockBounds(Epilogue):
    """The largest of each block's sums (+ bias), as its bound from above and from below; see program.h."""

    columns: int
    bias: bool

    @property
    def inputs(self) -> Mapping[str, str]:
        """The pointers that this epilogue reads."""
        return {"bias": "float32"} if self.bias else {}

    def write(self, writer: tir.KernelWriter, buffers: dict[str, tirx.Buffer], tile: Tile) -> None:
        """Emit the maxima of one tile; NaN counts as infinite, so that such a block is always looked at."""
        for m in range(tile.rows):
            row = tile.first_row + m
            with tir.when(row < writer.rows):
                value = tir.load(tile.totals[0], m * tir.LANES)
                if self.bias:
                    value = value + tir.load(buffers["bias"], tile.unit * tir.LANES)
                largest = tir.bind(block_maximum(without_nan(tir.bind(value)), tile.unit, self.columns))
                store_bounds(buffers["out"], row, tile.unit, self.columns, (largest, largest))


def without_nan(values: tir.Expr) -> tir.Expr:
    """Return the vector with infinity for every NaN."""
    # By the bits: TVM simplifies x != x to false.
    magnitude = op.bitwise_and(op.reinterpret("int32x16", values), tir.splat(tirx.const(0x7FFFFFFF, "int32")))
    is_nan = magnitude > tir.splat(tirx.const(0x7F800000, "int32"))
    return tirx.Select(is_nan, tir.floats(float("inf")), values)


def block_maximum(values: tir.Expr, block: tir.Expr, columns: int) -> tir.Expr:
    """Return the largest lane that is a column of the matrix."""
    inside = tir.ramp(block * tir.LANES) < tir.splat(tirx.const(columns, "int32"))
    return tir.lanes_max(
        tirx.Select(inside, values, tir.floats(float("-inf"))) if columns % tir.LANES else values
    )


def store_bounds(
    out: tirx.Buffer, row: tir.Expr, block: tir.Expr, columns: int, bounds: tuple[tir.Expr, tir.Expr]
) -> None:
    """Store a block's bounds from above and from below: out is [rows, 2, blocks]."""
    blocks = -(-columns // tir.LANES)
    for i, bound in enumerate(bounds):
        tir.store_one(out, bound, (row * 2 + i) * blocks + block)


@dataclass(frozen=True)
class ListedBlocks(Epilogue):
    """out[place] = the 16 sums (+ bias) of the block listed there, for the first row."""

    bias: bool

    listed = "items"

    @property
    def inputs(self) -> Mapping[str, str]:
        """The pointers that this epilogue reads."""
        return {"items": "int32"} | ({"bias": "float32"} if self.bias else {})

    def write(self, writer: tir.KernelWriter, buffers: dict[str, tirx.Buffer], tile: Tile) -> None:
        """Emit the store of one block."""
        value = tir.load(tile.totals[0], 0)
        if self.bias:
            value = value + tir.load(buffers["bias"], tile.unit * tir.LANES)
        tir.store(buffers["out"], value, tile.place * tir.LANES)


@dataclass(frozen=True)
class ScreenBounds(Epilogue):
    """Bounds on each block's logits from screened sums; see the module."""

    columns: int

    @property
    def inputs(self) -> Mapping[str, str]:
        """The pointers that this epilogue reads."""
        return {"low": "int8", "residual_norm": "float16", "weight_norm": "float16"}

    @property
    def outputs(self) -> Mapping[str, str]:
        """The pointers that it writes; `lengths` is private to the thread, [rows, 2]."""
        return {"lengths": "float32", **FLOAT_OUTPUTS}

    def begin(self, writer: tir.KernelWriter, buffers: dict[str, tirx.Buffer], inputs: int) -> None:
        """Emit for each row what ‖r‖ and ‖w‖ are multiplied by."""
        # Two roundings a group and some more a row, in both sums, with twice that for what is not counted here.
        rounding = (4 * (inputs // GROUP) + 32) * 2.0**-23
        with tir.loop(0, writer.rows) as row:
            high = tir.bind(self._length(writer, buffers, "values", row, inputs))
            low = tir.bind(self._length(writer, buffers, "low", row, inputs) * _scalar(1.0 / 256.0))
            both = (high + low) * _scalar(rounding) + low
            tir.store_one(buffers["lengths"], high * _scalar(_LENGTH_MARGIN), row * 2)
            tir.store_one(buffers["lengths"], both * _scalar(_LENGTH_MARGIN), row * 2 + 1)

    @staticmethod
    def _length(
        writer: tir.KernelWriter, buffers: dict[str, tirx.Buffer], part: str, row: tir.Expr, inputs: int
    ) -> tir.Expr:
        """Emit the norm of one byte of a row's activations."""
        squares = tir.registers(tir.LANES)
        tir.store(squares, tir.floats(0.0), 0)
        with tir.loop(0, inputs // HALF) as half:
            scale = tir.splat(buffers["scale"][row * (inputs // HALF) + half])
            value = tir.cast(tir.load(buffers[part], row * inputs + half * HALF), "float32x16")
            value = tir.bind(value * scale)
            tir.store(squares, writer.multiply_add(value, value, tir.load(squares, 0)), 0)
        return tir.square_root(tir.ordered_sum(tir.load(squares, 0))) + _scalar(_LENGTH_FLOOR)

    def write(self, writer: tir.KernelWriter, buffers: dict[str, tirx.Buffer], tile: Tile) -> None:
        """Emit the bounds of one tile."""
        first = tir.bind(tile.unit * tir.LANES)
        residual = tir.bind(tir.cast(tir.load(buffers["residual_norm"], first), "float32x16"))
        whole = tir.bind(tir.cast(tir.load(buffers["weight_norm"], first), "float32x16"))
        for m in range(tile.rows):
            row = tile.first_row + m
            with tir.when(row < writer.rows):
                low = tir.bind(tir.splat(buffers["lengths"][row * 2 + 1]) * whole)
                high = tir.splat(buffers["lengths"][row * 2])
                error = tir.bind(writer.multiply_add(residual, high, low))
                screened = tir.bind(tir.load(tile.totals[0], m * tir.LANES))
                above = block_maximum(without_nan(tir.bind(screened + error)), tile.unit, self.columns)
                below = block_maximum(tir.bind(screened - error), tile.unit, self.columns)
                store_bounds(buffers["out"], row, tile.unit, self.columns, (above, below))


def _scalar(value: float) -> tir.Expr:
    return tirx.const(value, "float32")
