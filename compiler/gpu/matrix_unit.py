"""Matmuls of tiles of 8 rows and more by CUDA's tensor cores: 16 columns × 16 inputs × 8 rows an instruction.

Products of signed bytes are added up exactly, so a row's bits are those of the kernels for fewer rows: the same splits
of the inputs, the same roundings after every half group.
"""

from __future__ import annotations

from collections.abc import Iterator

from tvm import tirx
from tvm.tirx import op
from tvm.tirx.script.builder import ir as builder

from forerun.compiler import tir
from forerun.compiler.gpu.heads import MULTIPLY
from forerun.compiler.gpu.matmul import (
    GroupProducts,
    GroupScales,
    Matmul,
    open_matmul,
    quantized_inputs,
    unit_blocks,
)
from forerun.compiler.gpu.weights import block_words
from forerun.compiler.gpu.writer import GpuKernel
from forerun.compiler.schedules.epilogues import Epilogue
from forerun.compiler.schedules.matmul import MatmulShape
from forerun.compiler.schemes import Scheme
from forerun.compiler.tir import LANES, Expr
from forerun.compiler.vector_math import GROUP
from forerun.targets.gpu import GpuTarget

UNIT_ROWS = 8  # of activations in an instruction
WARP, WARP_BLOCKS = 32, 2  # threads that run it together, and the blocks of 16 columns that they take
# The columns that a thread of a warp has of a block, and the rows that it has of an instruction's.
_COLUMNS, _ROWS = 2, 2


class _MatrixMatmul(Matmul):
    """A warp takes two blocks; its threads have sums [block, instruction, column, row]."""

    def _place(self) -> Expr:
        writer, warps = self.writer, self.columns // LANES // WARP_BLOCKS
        warp = tir.bind(tirx.floordiv(writer.thread, WARP))
        lane = tir.bind(tirx.floormod(writer.thread, WARP))
        self.quarter = tir.bind(tirx.floormod(lane, 4))
        self.eighth = tir.bind(tirx.floordiv(lane, 4))
        self.own_block = tir.bind(tirx.floormod(warp, warps) * WARP_BLOCKS)
        self.blocks = [self.block_number(self.own_block + i) for i in range(WARP_BLOCKS)]
        self.units = self.shape.tile // UNIT_ROWS
        self.sums = self.zeros(WARP_BLOCKS * self.units * _COLUMNS * _ROWS)
        return tir.bind(tirx.floordiv(warp, warps))

    def place(self, block: int, unit: int, column: int, row: int) -> int:
        """Return the number of a sum."""
        return ((block * self.units + unit) * _COLUMNS + column) * _ROWS + row

    def own_sums(self) -> Iterator[tuple[Expr | int, Expr, Expr]]:
        """Yield row of the tile, column of the workgroup, and sum of what the thread has added up."""
        for block in range(WARP_BLOCKS):
            for unit in range(self.units):
                for i in range(_COLUMNS * _ROWS):
                    column, row = divmod(i, _ROWS)
                    within = (self.own_block + block) * LANES + self.eighth + column * (LANES // _COLUMNS)
                    number = unit * UNIT_ROWS + self.quarter * _ROWS + row
                    yield number, within, self.sums[self.place(block, unit, column, row)]


def suits_matrix_unit(target: GpuTarget, shape: MatmulShape, epilogue: Epilogue) -> bool:
    """Whether a kernel is one for the tensor cores: of large tiles, with two blocks at least in a workgroup."""
    large = 0 < target.computes.matrix_rows <= shape.tile
    return large and epilogue.listed is None and unit_blocks(shape, epilogue) % WARP_BLOCKS == 0


def matrix_matmul(
    name: str, target: GpuTarget, scheme: Scheme, shape: MatmulShape, epilogue: Epilogue
) -> GpuKernel:
    """Return the kernel for quantized weights and activations; parameters as of `matmul.quantized_matmul`."""
    inputs = quantized_inputs(scheme)
    with open_matmul(_MatrixMatmul, name, target, scheme, inputs, shape, epilogue) as (matmul, done):
        products = _Products(matmul, target, scheme)
        matmul.each_split(shape.inputs // GROUP, products.add_group)
    return done[0]


class _Products(GroupProducts[_MatrixMatmul]):
    """Those of a warp's columns."""

    def __init__(self, matmul: _MatrixMatmul, target: GpuTarget, scheme: Scheme) -> None:
        super().__init__(matmul, target, scheme)
        # Of each half of a group.
        self.dots = [self.writer.own(_COLUMNS * _ROWS, "int32") for _ in range(2)]

    def add_group(self, g: Expr) -> None:
        """Emit the products of group `g` and add them to each row's sums."""
        for block, number in enumerate(self.matmul.blocks):
            place = tir.bind(number * self.groups + g)
            columns = [tir.bind(self.matmul.eighth + i * (LANES // _COLUMNS)) for i in range(_COLUMNS)]
            buffer, bits = self.writer.named["weights"], self.scheme.bits
            words = [block_words(self.target, buffer, place, column, bits) for column in columns]
            quads = [[word.quad(self.matmul.quarter + half * 4) for word in words] for half in range(2)]
            scales = [GroupScales.load(self.writer, self.scheme, place, column) for column in columns]
            for unit in range(self.matmul.units):
                self._add_unit(block, unit, g, quads, scales)

    def _add_unit(
        self, block: int, unit: int, g: Expr, quads: list[list[Expr]], scales: list[GroupScales]
    ) -> None:
        matmul, first = self.matmul, unit * UNIT_ROWS
        rows = [tir.bind(matmul.row(first + matmul.quarter * _ROWS + i)) for i in range(_ROWS)]
        given = tir.bind(matmul.row(first + matmul.eighth))
        for half in range(2):
            self._multiply(half, tir.bind(g * 2 + half), quads[half], rows, given)
        for i in range(_COLUMNS * _ROWS):
            column, row = divmod(i, _ROWS)
            place = matmul.place(block, unit, column, row)
            total = scales[column].add(
                self.writer,
                matmul.sums[place],
                g,
                [half[i] for half in self.dots].__getitem__,
                self.of_row(rows[row]),
            )
            tir.store_one(matmul.sums, total, place)

    def _multiply(self, half: int, index: Expr, words: list[Expr], rows: list[Expr], given: Expr) -> None:
        """Make the half's products Σ x · (u - offset), int32."""
        dots, wide, begins = self.dots[half], self.scheme.wide, [self.offset(row, index) for row in rows]
        for i in range(_COLUMNS * _ROWS):
            tir.store_one(dots, tirx.const(0, "int32") if wide else begins[i % _ROWS], i)
        self._call(dots, "values", index, words, given)
        if not wide:
            return
        for i in range(_COLUMNS * _ROWS):
            shifted = op.shift_left(dots[i], tirx.const(8, "int32")) + begins[i % _ROWS]
            tir.store_one(dots, tir.bind(shifted), i)
        self._call(dots, "low", index, words, given)

    def _call(self, dots: tirx.Buffer, part: str, index: Expr, words: list[Expr], given: Expr) -> None:
        row = self.activation(part, given, index * 4 + self.matmul.quarter)
        builder.evaluate(op.call_extern("void", MULTIPLY, op.address_of(dots[0]), *words, row))
