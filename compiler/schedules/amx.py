"""The matmul kernel for many rows on AMX: the products of 16 rows and 16 columns by one instruction.

Only the integer products differ from `matmul.py`, and they are exact: so a row's sums are the same bits here. As
activations have a scale for every 16 inputs, a tile product spans half a group, and its sums go through memory to
the vector registers where they are scaled.
"""

from __future__ import annotations

from tvm import tirx
from tvm.tirx import op

from forerun.compiler import tir
from forerun.compiler.schedules.dots import QUADS, HalfBlock, load_quads
from forerun.compiler.schedules.epilogues import Epilogue
from forerun.compiler.schedules.layouts import block_bytes
from forerun.compiler.schedules.matmul import (
    ARRAY_ROWS,
    Group,
    MatmulShape,
    Place,
    QuantizedSums,
    RowSums,
    walk_units,
    writing_quantized,
)
from forerun.compiler.schemes import Scheme
from forerun.compiler.vector_math import HALF
from forerun.targets.target import Arithmetic

ROWS = 16
CHUNK = 64  # bytes of a row of a tile: 16 int32 sums, or a quad of inputs of 16 columns of weights

# Tile registers, in turns so that a product need not wait for the store of the one before.
SUMS, ACTIVATIONS, WEIGHTS = (0, 1, 2, 3), (4, 5), (6, 7)


def amx_matmul(
    name: str, arithmetic: Arithmetic, scheme: Scheme, shape: MatmulShape, epilogue: Epilogue
) -> tir.Kernel:
    """Return the kernel for quantized weights and activations, tiles of 16 rows.

    The tiles' configuration belongs to the thread: each call sets it and leaves none behind. The sums of activations
    among the parameters are those of the other kernels; here nothing reads them.
    """
    with writing_quantized(name, arithmetic, scheme, epilogue) as writer:
        _configure()
        sums = _TileSums(writer, scheme, shape)
        walk_units(writer, shape, epilogue, writer.named, sums.accumulate)
        tir.instruct("llvm.x86.tilerelease")
    return writer.kernel()


def _configure() -> None:
    """Emit the configuration: palette 1, then at byte 16 each tile's bytes a row, at byte 48 its rows."""
    config = tir.registers(CHUNK, "uint8")
    tir.store(config, tir.splat(tirx.const(0, "uint8"), CHUNK), 0, CHUNK)
    tir.store_one(config, tirx.const(1, "uint8"), 0)
    for tiles, rows, row_bytes in (
        (SUMS, ARRAY_ROWS, CHUNK),
        (ACTIVATIONS, ARRAY_ROWS, HALF),
        (WEIGHTS, QUADS, CHUNK),
    ):
        for tile in tiles:
            tir.store_one(config, tirx.const(row_bytes, "uint8"), 16 + 2 * tile)
            tir.store_one(config, tirx.const(rows, "uint8"), 48 + tile)
    tir.instruct("llvm.x86.ldtilecfg", tir.address(config, 0))


class _TileSums(QuantizedSums):
    """Products by tiles: all of a group's first, then their scaling, row by row."""

    def __init__(self, writer: tir.KernelWriter, scheme: Scheme, shape: MatmulShape) -> None:
        assert shape.tile == ROWS
        super().__init__(writer, scheme, shape)
        parts = ("values", "low") if scheme.wide else ("values",)
        self.products = [{part: _Products() for part in parts} for _ in range(2)]
        self.weights = [tir.Lines(QUADS * CHUNK, "uint8") for _ in range(2)]

    def add_group(self, group: Group, first_row: tir.Expr, totals: RowSums) -> None:
        """Emit the products of the group's halves with all rows, then what is rounded."""
        self._load_weights(group)
        for half, products in enumerate(self.products):
            _load_tile(WEIGHTS[half], self.weights[half].address(), CHUNK)
            for part, sums in products.items():
                self._multiply(part, (first_row, group.number, half), sums)
        for m in range(ROWS):
            scaled: tir.Expr | None = None
            for half in range(2):
                scaled = self.half(self._dots(half, m), (first_row + m, group.number, half), scaled)
                if self.ends_scale(half):
                    totals.store(m, self.scaled(group, half, first_row + m, scaled, totals.load(m)))
                    scaled = None

    def _load_weights(self, group: Group) -> None:
        """Emit the unpacking of a group's weights to signed bytes u - offset.

        Once for 16 rows, which is cheaper than to start each row's products at -offset · Σ activations.
        """
        offset = tir.splat(tirx.const(self.scheme.offset, "uint8"), CHUNK)
        start = group.place * block_bytes(self.scheme.bits)
        for half in range(2):
            quads = load_quads(HalfBlock(self.buffers["weights"], start, self.scheme.bits, half), 0, CHUNK)
            for quad, weights in enumerate(quads):
                tir.store(self.weights[half].elements, weights - offset, quad * CHUNK, CHUNK)

    def _multiply(self, part: str, place: Place, sums: _Products) -> None:
        """Emit sums = activations of half a group · weights, 8 rows at a time."""
        first_row, g, half = place
        for eight, array in enumerate(sums.arrays):
            number = SUMS[2 * half + eight]
            start = self.start((first_row + eight * ARRAY_ROWS, g, half))
            tir.instruct("llvm.x86.tilezero", _number(number))
            _load_tile(ACTIVATIONS[eight], tir.address(self.buffers[part], start), self.shape.inputs)
            tir.instruct("llvm.x86.tdpbssd", *map(_number, (number, ACTIVATIONS[eight], WEIGHTS[half])))
            stride = tirx.const(CHUNK, "int64")
            tir.instruct("llvm.x86.tilestored64", _number(number), array.address(), stride)

    def _dots(self, half: int, m: int) -> tir.Expr:
        """Return Σ x · (u - offset) of one row."""
        parts = self.products[half]
        if not self.scheme.wide:
            return parts["values"].load(m)
        eight = tir.splat(tirx.const(8, "int32"))
        return op.shift_left(parts["values"].load(m), eight) + parts["low"].load(m)


class _Products:
    """Products of 16 rows and 16 columns in memory, 8 rows an array."""

    def __init__(self) -> None:
        self.arrays = [tir.Lines(ARRAY_ROWS * tir.LANES, "int32") for _ in range(ROWS // ARRAY_ROWS)]

    def load(self, m: int) -> tir.Expr:
        """Return row m."""
        return tir.load(self.arrays[m // ARRAY_ROWS].elements, m % ARRAY_ROWS * tir.LANES)


def _load_tile(tile: int, place: tir.Expr, row_bytes: int) -> None:
    tir.instruct("llvm.x86.tileloadd64", _number(tile), place, tirx.const(row_bytes, "int64"))


def _number(tile: int) -> tir.Expr:
    return tirx.const(tile, "int8")
