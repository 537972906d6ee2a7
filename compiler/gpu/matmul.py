"""Matmuls for few rows on a device: a workgroup takes some blocks of 16 columns and shares out their inputs.

A thread has one column and every `splits`-th group of 32 inputs: 16 threads read a block's words side by side, and the
threads of a workgroup blocks that follow one another. Each keeps one sum a row of the tile; at the end the sums of a
column's threads are added up in their order. The number of splits is the matmul's own, so that a row's result does not
depend on the tile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from tvm import tirx
from tvm.tirx import op

from forerun.compiler import tir
from forerun.compiler.gpu.epilogues import TileSums, end_matmul
from forerun.compiler.gpu.rows import outputs_of
from forerun.compiler.gpu.slabs import Slabs, slabs_of
from forerun.compiler.gpu.weights import QUADS, block_words, subtracted
from forerun.compiler.gpu.words import QuantizedWords
from forerun.compiler.gpu.writer import (
    GpuKernel,
    GpuWriter,
    Grid,
    writing,
)
from forerun.compiler.schedules.epilogues import Epilogue
from forerun.compiler.schedules.matmul import MatmulShape, scalars_of
from forerun.compiler.schemes import FLOAT32, Scheme
from forerun.compiler.tir import LANES, Expr
from forerun.compiler.vector_math import GROUP
from forerun.targets.gpu import GpuTarget

# A scalar of matmuls whose blocks are listed: how many items of the list are for the first row, for the next …
ROW_ITEMS = "row_items"


def device_scalars(epilogue: Epilogue, slabs: Slabs) -> Mapping[str, str]:
    """Return a matmul's scalars, with their types: those of the CPU's, then the device's own."""
    own = {ROW_ITEMS: "int32"} if epilogue.listed is not None else {}
    return {**scalars_of(epilogue), **own, **slabs.scalars}


def unit_blocks(shape: MatmulShape, epilogue: Epilogue) -> int:
    """Blocks of columns that a workgroup takes: what a gated output's 32 are made of, or more."""
    return max(epilogue.blocks_per_unit, shape.unit_blocks)


def _blocks(shape: MatmulShape, epilogue: Epilogue) -> int:
    # Of a list each workgroup has a block of its own.
    return 1 if epilogue.listed is not None else unit_blocks(shape, epilogue)


def _splits(shape: MatmulShape, epilogue: Epilogue) -> int:
    """How many threads share a column: as many for all forms of the head, so that their bits are the same."""
    return shape.threads // (unit_blocks(shape, epilogue) * LANES)


class Matmul:
    """What the kernels of all weights have in common: places in the grid, the sums of a tile, their end."""

    def __init__(self, writer: GpuWriter, shape: MatmulShape, epilogue: Epilogue, slabs: Slabs) -> None:
        self.writer, self.shape, self.epilogue, self.slabs = writer, shape, epilogue, slabs
        self.splits, self.columns = _splits(shape, epilogue), _blocks(shape, epilogue) * LANES
        self.first_row = tir.bind(writer.y * shape.tile)
        if epilogue.listed is not None:
            self.first_row = tir.bind(tirx.floordiv(writer.x, writer.scalars[ROW_ITEMS]))
            self.first_block = tir.bind(writer.named[epilogue.listed][writer.x])
        else:
            self.first_block = tir.bind(writer.x * _blocks(shape, epilogue) + slabs.first(writer))
        self.first_column = tir.bind(self.first_block * LANES)
        self.split = self._place()

    def _place(self) -> Expr:
        """Find the thread's column and start its sums; return which of those that share a column it is."""
        writer = self.writer
        self.within = tir.bind(tirx.floormod(writer.thread, self.columns))
        self.lane = tir.bind(tirx.floormod(self.within, LANES))
        self.block = self.block_number(tirx.floordiv(self.within, LANES))
        self.sums = self.zeros(self.shape.tile)
        return tir.bind(tirx.floordiv(writer.thread, self.columns))

    def block_number(self, place: Expr) -> Expr:
        """Return the number in its slab of one of the workgroup's blocks."""
        # Columns past the last block repeat it: they are computed and not written.
        return self.slabs.within(
            self.writer, tir.bind(op.min(self.first_block + place, self.shape.blocks - 1))
        )

    def zeros(self, count: int) -> tirx.Buffer:
        """Return sums of the thread's own."""
        sums = self.writer.own(count)
        for i in range(count):
            tir.store_one(sums, tirx.const(0.0, "float32"), i)
        return sums

    def row(self, m: int | Expr) -> Expr:
        """Row m of the tile, or the last one of the call where there is none."""
        return op.min(self.first_row + m, self.writer.rows - 1)

    def each_split(self, count: int, body: Callable[[Expr], None]) -> None:
        """Emit `body(i)` for every i below `count` that is this thread's."""
        whole = count % self.splits == 0
        with tir.loop(0, -(-count // self.splits)) as step:
            i = tir.bind(step * self.splits + self.split)
            with tir.when(tirx.const(True, "bool") if whole else i < count):
                body(i)

    def own_sums(self) -> Iterator[tuple[Expr | int, Expr, Expr]]:
        """Yield row of the tile, column of the workgroup, and sum of what the thread has added up."""
        for m in range(self.shape.tile):
            yield m, self.within, self.sums[m]

    def finish(self) -> None:
        """Add the threads' sums up in order, and do with them what the epilogue says."""
        writer, tile, columns = self.writer, self.shape.tile, self.columns
        shares = writer.shared(self.splits * tile * columns)
        for row, column, own in self.own_sums():
            tir.store_one(shares, own, (self.split * tile + row) * columns + column)
        writer.meet()

        def total(item: Expr) -> Expr:
            found = shares[item]
            for split in range(1, self.splits):
                found = tir.bind(found + shares[split * tile * columns + item])
            return found

        mine = partial(self.slabs.when_mine, writer, self.first_block)
        sums = TileSums(tile, columns, self.first_row, self.first_column, self.shape.blocks, total, mine)
        end_matmul(writer, self.epilogue, sums)


def _grid(shape: MatmulShape, epilogue: Epilogue, slabs: Slabs) -> Grid:
    if epilogue.listed is not None:
        return Grid("item_count", 0)
    return Grid(-(-slabs.each // _blocks(shape, epilogue)), shape.tile)


Form = TypeVar("Form", bound=Matmul)


@contextmanager
def open_matmul(
    form: type[Form],
    name: str,
    target: GpuTarget,
    scheme: Scheme,
    inputs: Mapping[str, str],
    shape: MatmulShape,
    epilogue: Epilogue,
) -> Iterator[tuple[Form, list[GpuKernel]]]:
    """Open a matmul's kernel and, after the body has added products to the sums, end it. The list gets it."""
    slabs = slabs_of(target, shape.columns, shape.inputs, scheme)
    with writing(
        name,
        target.computes,
        {**inputs, **epilogue.inputs},
        outputs_of(len(epilogue.outputs) > 1),
        device_scalars(epilogue, slabs),
        threads=_splits(shape, epilogue) * _blocks(shape, epilogue) * LANES,
        grid=_grid(shape, epilogue, slabs),
    ) as (writer, done):
        matmul = form(writer, shape, epilogue, slabs)
        yield matmul, done
        matmul.finish()


def quantized_matmul(
    name: str, target: GpuTarget, scheme: Scheme, shape: MatmulShape, epilogue: Epilogue
) -> GpuKernel:
    """Return the kernel for quantized weights and activations.

    Parameters of the kernel: values, in words; weights, weight_scale [, weight_minimum]; then the epilogue's.
    """
    inputs = quantized_inputs(scheme)
    with open_matmul(Matmul, name, target, scheme, inputs, shape, epilogue) as (matmul, done):
        sums = _QuantizedSums(matmul, target, scheme)
        matmul.each_split(shape.inputs // GROUP, sums.add_group)
    return done[0]


def quantized_inputs(scheme: Scheme) -> dict[str, str]:
    """Return what a kernel for quantized weights reads, but for what its epilogue needs, with the types."""
    minimum = {"weight_minimum": "float16"} if scheme.affine else {}
    return {"values": "uint32", "weights": "uint8", "weight_scale": "float16", **minimum}


@dataclass(frozen=True)
class GroupScales:
    """What weights of a group of 32 inputs of one column count: each of the scheme's scales, and the least."""

    scales: list[Expr]
    minimum: Expr | None

    @classmethod
    def load(cls, writer: GpuWriter, scheme: Scheme, place: Expr, lane: Expr) -> GroupScales:
        """Load those of column `lane` of block and group number `place`."""
        scales = []
        for part in range(scheme.scales):
            scale = writer.load_half("weight_scale", (place * scheme.scales + part) * LANES + lane)
            # Two bytes of activations count in 256ths; a power of two rounds nothing.
            scales.append(tir.bind(scale * tirx.const(1.0 / 256.0, "float32") if scheme.wide else scale))
        if not scheme.affine:
            return cls(scales, None)
        return cls(scales, tir.bind(writer.load_half("weight_minimum", place * LANES + lane)))

    def add(
        self,
        writer: GpuWriter,
        total: Expr,
        g: Expr,
        dots: Callable[[int], Expr],
        activation: Callable[[str, Expr], Expr],
    ) -> Expr:
        """Return `total` plus a row's products with group `g`, in the CPU's order of roundings.

        `dots(half)` are the int32 products of half a group, `activation(part, index)` what the row counts.
        """
        products = None
        for half in range(2):
            number, scale = tir.cast(dots(half), "float32"), activation("scale", g * 2 + half)
            products = tir.bind(
                number * scale if products is None else writer.multiply_add(number, scale, products)
            )
            if half == 1 or len(self.scales) == 2:
                last = self.scales[half * len(self.scales) // 2]
                total, products = tir.bind(writer.multiply_add(products, last, total)), None
        if self.minimum is None:
            return total
        return writer.multiply_add(self.minimum, activation("scaled_sum", g), total)


class GroupProducts(Generic[Form]):
    """Products of quantized weights with the rows of a tile, a group of 32 inputs at a time."""

    def __init__(self, matmul: Form, target: GpuTarget, scheme: Scheme) -> None:
        self.matmul, self.target, self.scheme = matmul, target, scheme
        self.writer, self.groups = matmul.writer, matmul.shape.inputs // GROUP
        self.words = QuantizedWords(matmul.shape.inputs)

    def activation(self, part: str, row: Expr, index: Expr) -> Expr:
        """Return number `index` of a part of a row's activations."""
        return self.words.load(self.writer.named["values"], part, row, index)

    def of_row(self, row: Expr) -> Callable[[str, Expr], Expr]:
        """Return what gives a row's numbers by their part and index."""
        return lambda part, index: self.activation(part, row, index)

    def offset(self, row: Expr, index: Expr) -> Expr:
        """Return Σ x · -offset over half a group, int32: what products with the weights' bytes lack."""
        offset = self.scheme.offset - subtracted(self.scheme.bits)
        if not offset:
            return tirx.const(0, "int32")
        return tir.bind(self.activation("wide_sum" if self.scheme.wide else "sum", row, index) * -offset)


class _QuantizedSums(GroupProducts[Matmul]):
    """Those of a thread's column, in the CPU's order of roundings."""

    def add_group(self, g: Expr) -> None:
        """Emit the products of group `g` and add them to each row's sum."""
        matmul = self.matmul
        place = tir.bind(matmul.block * self.groups + g)
        block = block_words(self.target, self.writer.named["weights"], place, matmul.lane, self.scheme.bits)
        quads = [block.quad(number) for number in range(QUADS)]
        scales = GroupScales.load(self.writer, self.scheme, place, matmul.lane)
        for m in range(matmul.shape.tile):
            self._add_row(m, g, quads, scales)

    def _add_row(self, m: int, g: Expr, quads: list[Expr], scales: GroupScales) -> None:
        row = tir.bind(self.matmul.row(m))
        total = scales.add(
            self.writer,
            self.matmul.sums[m],
            g,
            lambda half: self._dots(row, tir.bind(g * 2 + half), quads[half * 4 : half * 4 + 4]),
            self.of_row(row),
        )
        tir.store_one(self.matmul.sums, total, m)

    def _dots(self, row: Expr, index: Expr, quads: list[Expr]) -> Expr:
        """Return Σ x · (u - offset) over half a group, int32."""
        total = self.offset(row, index)
        if not self.scheme.wide:
            return self._multiply(quads, "values", row, index, total)
        high = self._multiply(quads, "values", row, index, tirx.const(0, "int32"))
        shifted = tir.bind(op.shift_left(high, tirx.const(8, "int32")) + total)
        return self._multiply(quads, "low", row, index, shifted)

    def _multiply(self, quads: list[Expr], part: str, row: Expr, index: Expr, total: Expr) -> Expr:
        for quad, weights in enumerate(quads):
            four = self.activation(part, row, index * 4 + quad)
            total = self.writer.add_products(weights, four, total)
        return total


def float_matmul(name: str, target: GpuTarget, shape: MatmulShape, epilogue: Epilogue) -> GpuKernel:
    """Return the kernel for float32 weights, laid out [N/16, K, 16], and float32 activations."""
    inputs = {"values": "float32", "weights": "float32"}
    with open_matmul(Matmul, name, target, FLOAT32, inputs, shape, epilogue) as (matmul, done):
        writer = matmul.writer

        def add_input(k: Expr) -> None:
            weight = tir.bind(
                writer.named["weights"][(matmul.block * shape.inputs + k) * LANES + matmul.lane]
            )
            for m in range(shape.tile):
                value = writer.named["values"][matmul.row(m) * shape.inputs + k]
                tir.store_one(matmul.sums, writer.multiply_add(value, weight, matmul.sums[m]), m)

        matmul.each_split(shape.inputs, add_input)
    return done[0]
