"""The matmul kernel for few rows: y = x · Wᵀ with x in registers' reach and W streamed once per tile of rows.

A thread owns a contiguous share of the weights. For each unit of 16 (or, gated, 64) weight rows it walks the
rows in tiles of up to 8, keeping 16 sums a row in registers while it goes through K in order: per group of 32
inputs two exact integer dot products, one a half, then multiply-adds by the scales. The order never depends on the
tile, so a row's sums are the same bits in any tile, call or thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from tvm import tirx
from tvm.tirx import op

from forerun.compiler import tir
from forerun.compiler.schedules.dots import Dot, HalfBlock, Loaded
from forerun.compiler.schedules.epilogues import Epilogue, Tile
from forerun.compiler.schedules.layouts import block_bytes
from forerun.compiler.schemes import Scheme
from forerun.compiler.vector_math import GROUP, HALF, QUANTIZED_OUTPUTS


@dataclass(frozen=True)
class MatmulShape:
    """W is [columns, inputs]; a kernel of this shape handles `tile` rows per pass over a weight unit.

    `prefetch_bytes` is how far ahead of their use quantized weights are asked for, 0 = leave it to the hardware.
    `together` blocks of 16 weight rows share each load of an activation: a whole part of an epilogue's unit, or whole
    units, and of `blocks`. `by_row` finishes a group of 32 inputs for one row before the next, with all the group's
    weights in registers; else half a group's weights at a time meet all rows.
    """

    columns: int
    inputs: int
    tile: int
    prefetch_bytes: int = 0
    together: int = 1
    by_row: bool = False

    @property
    def blocks(self) -> int:
        """Blocks of 16 weight rows, the last one padded."""
        return -(-self.columns // tir.LANES)


ACTIVATION_TYPES: Mapping[str, str] = MappingProxyType(
    {name.removeprefix("out_"): dtype for name, dtype in QUANTIZED_OUTPUTS.items()} | {"values": "int8"}
)


def activation_parts(scheme: Scheme) -> tuple[str, ...]:
    """Return which arrays of quantized activations a kernel for this scheme reads, in parameter order."""
    if scheme.affine:
        return ("values", "scale", "scaled_sum")
    return ("values", "low", "scale", "wide_sum") if scheme.wide else ("values", "scale", "sum")


AccumulateBlocks = Callable[[Sequence[tir.Expr], tir.Expr, Sequence[tirx.Buffer]], None]


def walk_units(
    writer: tir.KernelWriter,
    shape: MatmulShape,
    epilogue: Epilogue,
    buffers: dict[str, tirx.Buffer],
    accumulate: AccumulateBlocks,
) -> None:
    """Emit the loops over this thread's units and over tiles of rows.

    A step of the walk covers `shape.together` blocks, or a unit of the epilogue if that is more.
    `accumulate(blocks, first_row, totals)` emits the sums of blocks of 16 columns into `totals` [tile, 16] each.
    """
    size, listed = epilogue.blocks_per_unit, epilogue.listed
    units = max(1, shape.together // size)
    begin, end = writer.share(shape.blocks // (size * units) if listed is None else writer.scalars[0])
    tiles = tir.bind(tirx.floordiv(writer.rows + (shape.tile - 1), shape.tile))
    with tir.loop(begin, end) as place, tir.loop(0, tiles) as index:
        step = place if listed is None else tir.bind(buffers[listed][place])
        first_row = tir.bind(index * shape.tile)
        # One array a block: TVM takes arrays of over a kilobyte from a heap, not from the stack.
        totals = tuple(tir.registers(shape.tile * tir.LANES) for _ in range(size * units))
        for first in range(0, size * units, shape.together):
            blocks = [step * (size * units) + first + i for i in range(shape.together)]
            accumulate(blocks, first_row, totals[first : first + shape.together])
        for unit in range(units):
            own, number = totals[unit * size : (unit + 1) * size], step * units + unit
            written = number if listed is None else place
            epilogue.write(writer, buffers, Tile(own, shape.tile, first_row, number, written))


def scalars_of(epilogue: Epilogue) -> Mapping[str, str]:
    """The scalar parameters of a matmul: how many units are listed, where they are."""
    return {} if epilogue.listed is None else {"item_count": "int32"}


def quantized_matmul(
    name: str, fma: bool, dot: Dot, scheme: Scheme, shape: MatmulShape, epilogue: Epilogue
) -> tir.Kernel:
    """Return the kernel for quantized weights and activations.

    Parameters of the kernel: the `activation_parts` of the scheme; weights, weight_scale [, weight_minimum]; then
    the epilogue's.
    """
    inputs: dict[str, str] = {part: ACTIVATION_TYPES[part] for part in activation_parts(scheme)}
    minimum = {"weight_minimum": "float16"} if scheme.affine else {}
    inputs |= {"weights": "uint8", "weight_scale": "float16", **minimum, **epilogue.inputs}
    with tir.writing(name, fma, inputs, epilogue.outputs, scalars_of(epilogue)) as writer:
        sums = _QuantizedSums(writer, dot, scheme, shape)
        walk_units(writer, shape, epilogue, writer.named, sums.accumulate)
    return writer.kernel()


@dataclass(frozen=True)
class _GroupPlace:
    """A group of 32 inputs: its number, where it lies in each block, and each block's scale [and minimum] for it."""

    number: tir.Expr
    groups: Sequence[tir.Expr]
    scales: Sequence[tir.Expr]
    minimums: Sequence[tir.Expr]


class _QuantizedSums:
    """Writes the sums of some blocks of columns over all of K, for a tile of rows."""

    def __init__(self, writer: tir.KernelWriter, dot: Dot, scheme: Scheme, shape: MatmulShape) -> None:
        self.writer, self.dot, self.scheme, self.shape = writer, dot, scheme, shape
        self.buffers = writer.named
        self.groups = shape.inputs // GROUP

    def accumulate(
        self, blocks: Sequence[tir.Expr], first_row: tir.Expr, totals: Sequence[tirx.Buffer]
    ) -> None:
        """Emit the loop over groups: integer dot products a half, scaled and added up in order."""
        rows = range(self.shape.tile)
        first_groups = [tir.bind(tir.cast(block, "int64") * self.groups) for block in blocks]
        for sums in totals:
            for m in rows:
                tir.store(sums, tir.floats(0.0), m * tir.LANES)
        with tir.loop(0, self.groups) as g:
            place = self._place(g, [tir.bind(first + tir.cast(g, "int64")) for first in first_groups])
            products: list[list[tir.Expr]] = [[] for _ in rows]
            if self.shape.by_row:
                loaded = [self._load(place, half) for half in range(2)]
                for m in rows:
                    for half in range(2):
                        products[m] = self._half(loaded[half], (first_row + m, g, half), products[m])
                    self._finish(place, first_row, m, products[m], totals)
                return
            for half in range(2):
                weights = self._load(place, half)
                for m in rows:
                    products[m] = self._half(weights, (first_row + m, g, half), products[m])
            for m in rows:
                self._finish(place, first_row, m, products[m], totals)

    def _place(self, g: tir.Expr, groups: Sequence[tir.Expr]) -> _GroupPlace:
        """Emit the prefetches and the loads of scales."""
        size, ahead = block_bytes(self.scheme.bits), self.shape.prefetch_bytes
        for group in groups:
            for line in range(0, size if ahead else 0, 64):
                tir.prefetch(self.buffers["weights"], group * size + ahead + line)
        for name in ("weight_scale", "weight_minimum") if ahead % 2 else ():
            if name in self.buffers:
                for group in groups:
                    tir.prefetch(self.buffers[name], (group + ahead // size) * tir.LANES)
        scales = [_widen(self.buffers["weight_scale"], group) for group in groups]
        if self.scheme.wide:
            # Two bytes of activations count in 256ths; a power of two rounds nothing.
            scales = [scale * tir.floats(1.0 / 256.0) for scale in scales]
        minimums = (
            [_widen(self.buffers["weight_minimum"], group) for group in groups] if self.scheme.affine else []
        )
        return _GroupPlace(g, groups, [tir.bind(s) for s in scales], [tir.bind(m) for m in minimums])

    def _load(self, place: _GroupPlace, half: int) -> list[Loaded]:
        weights, bits = self.buffers["weights"], self.scheme.bits
        return [
            self.dot.load(HalfBlock(weights, group * block_bytes(bits), bits, half)) for group in place.groups
        ]

    def _half(
        self,
        loaded: Sequence[Loaded],
        place: tuple[tir.Expr, tir.Expr, int],
        before: Sequence[tir.Expr],
    ) -> list[tir.Expr]:
        """Return Σ x · u over half a group of one row, scaled by the half's activation scale, added to `before`
        in the second half, for each block."""
        row, g, half = place
        index = row * (self.shape.inputs // HALF) + g * 2 + half
        start = row * self.shape.inputs + g * GROUP + half * HALF
        zero = tir.splat(tirx.const(0, "int32"))
        # u - offset is never formed: the dot starts at -offset · Σ activations instead.
        first = zero
        if self.scheme.offset:
            total = self.buffers["wide_sum" if self.scheme.wide else "sum"][index]
            first = tir.bind(tir.splat(total * -self.scheme.offset))
        firsts: Sequence[tir.Expr] = [first for _ in loaded]
        if self.scheme.wide:
            high = self.dot.sums(loaded, self.buffers["values"], start, [zero for _ in loaded])
            eight = tir.splat(tirx.const(8, "int32"))
            firsts = [tir.bind(op.shift_left(one, eight) + first) for one in high]
        values = self.buffers["low" if self.scheme.wide else "values"]
        scale = tir.bind(tir.splat(self.buffers["scale"][index]))
        dots = [tir.cast(one, "float32x16") for one in self.dot.sums(loaded, values, start, firsts)]
        if not before:
            return [tir.bind(one * scale) for one in dots]
        return [
            tir.bind(self.writer.multiply_add(one, scale, part))
            for one, part in zip(dots, before, strict=True)
        ]

    def _finish(
        self,
        place: _GroupPlace,
        first_row: tir.Expr,
        m: int,
        products: Sequence[tir.Expr],
        totals: Sequence[tirx.Buffer],
    ) -> None:
        """Emit totals += weight scale · products (+ weight minimum · Σ activations) for one row."""
        lanes = m * tir.LANES
        if self.scheme.affine:
            part = self.buffers["scaled_sum"][(first_row + m) * self.groups + place.number]
            scaled_sum = tir.bind(tir.splat(part))
        for block, sums in enumerate(totals):
            total = self.writer.multiply_add(products[block], place.scales[block], tir.load(sums, lanes))
            if self.scheme.affine:
                total = self.writer.multiply_add(place.minimums[block], scaled_sum, total)
            tir.store(sums, total, lanes)


def _widen(halves: tirx.Buffer, group: tir.Expr) -> tir.Expr:
    return tir.cast(tir.load(halves, group * tir.LANES), "float32x16")


def float_matmul(name: str, fma: bool, shape: MatmulShape, epilogue: Epilogue) -> tir.Kernel:
    """Return the kernel for float32 weights, laid out [N/16, K, 16], and float32 activations.

    Parameters of the kernel: values; weights; then the epilogue's.
    """
    inputs = {"values": "float32", "weights": "float32", **epilogue.inputs}
    with tir.writing(name, fma, inputs, epilogue.outputs, scalars_of(epilogue)) as writer:
        buffers = writer.named

        def accumulate(
            blocks: Sequence[tir.Expr], first_row: tir.Expr, totals: Sequence[tirx.Buffer]
        ) -> None:
            for block, sums in zip(blocks, totals, strict=True):
                _accumulate_floats(writer, shape, buffers, (block, first_row, sums))

        walk_units(writer, shape, epilogue, buffers, accumulate)
    return writer.kernel()


def _accumulate_floats(
    writer: tir.KernelWriter,
    shape: MatmulShape,
    buffers: dict[str, tirx.Buffer],
    place: tuple[tir.Expr, tir.Expr, tirx.Buffer],
) -> None:
    block, first_row, totals = place
    first = tir.bind(tir.cast(block, "int64") * shape.inputs)
    for m in range(shape.tile):
        tir.store(totals, tir.floats(0.0), m * tir.LANES)
    with tir.loop(0, shape.inputs) as k:
        column = tir.bind(tir.load(buffers["weights"], (first + tir.cast(k, "int64")) * tir.LANES))
        for m in range(shape.tile):
            value = tir.splat(buffers["values"][(first_row + m) * shape.inputs + k])
            total = writer.multiply_add(value, column, tir.load(totals, m * tir.LANES))
            tir.store(totals, total, m * tir.LANES)
