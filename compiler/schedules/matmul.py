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
from forerun.compiler.schedules.layouts import BlockLayout, weight_arrays
from forerun.compiler.schemes import Scheme
from forerun.compiler.vector_math import GROUP, HALF, QUANTIZED_OUTPUTS


@dataclass(frozen=True)
class MatmulShape:
    """W is [columns, inputs]; a kernel of this shape handles `tile` rows per pass over a weight unit.

    `prefetch_bytes` is how far ahead of their use quantized weights are asked for, 0 = leave it to the hardware.
    `together` blocks of 16 weight rows share each load of an activation.
    """

    columns: int
    inputs: int
    tile: int
    prefetch_bytes: int = 0
    together: int = 1

    @property
    def blocks(self) -> int:
        """Blocks of 16 weight rows, the last one padded."""
        return -(-self.columns // tir.LANES)


@dataclass(frozen=True)
class Weights:
    """Quantized weights as a kernel reads them: their scheme, how they lie in memory, and the dot for them."""

    scheme: Scheme
    layout: BlockLayout
    dot: Dot


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

    A step of the walk is one or several of the epilogue's units, as many as `shape.together` blocks need.
    `accumulate(blocks, first_row, totals)` emits the sums of blocks of 16 columns into `totals` [tile, 16] each.
    """
    size = epilogue.blocks_per_unit
    units, together = (
        max(1, shape.together // size),
        min(shape.together, size * max(1, shape.together // size)),
    )
    listed = buffers[epilogue.listed] if epilogue.listed is not None else None
    assert listed is None or units == 1, "listed units need not be neighbours"
    begin, end = writer.share(shape.blocks // (size * units) if listed is None else writer.scalars[0])
    tiles = tir.bind(tirx.floordiv(writer.rows + (shape.tile - 1), shape.tile))
    with tir.loop(begin, end) as step, tir.loop(0, tiles) as index:
        first_unit = step * units if listed is None else tir.bind(listed[step])
        first_row = tir.bind(index * shape.tile)
        # One array a block: TVM takes arrays of over a kilobyte from a heap, not from the stack.
        totals = tuple(tir.registers(shape.tile * tir.LANES) for _ in range(size * units))
        for first in range(0, size * units, together):
            blocks = [first_unit * size + first + i for i in range(together)]
            accumulate(blocks, first_row, totals[first : first + together])
        for unit in range(units):
            own = totals[unit * size : (unit + 1) * size]
            tile = Tile(own, shape.tile, first_row, first_unit + unit, step * units + unit)
            epilogue.write(writer, buffers, tile)


def scalars_of(epilogue: Epilogue) -> Mapping[str, str]:
    """The scalar parameters of a matmul: how many units are listed, where they are."""
    return {} if epilogue.listed is None else {"item_count": "int32"}


def quantized_matmul(
    name: str, fma: bool, weights: Weights, shape: MatmulShape, epilogue: Epilogue
) -> tir.Kernel:
    """Return the kernel for quantized weights and activations.

    Parameters of the kernel: the `activation_parts` of the scheme; the layout's arrays of weights, weight_scale
    [, weight_minimum]; then the epilogue's.
    """
    scheme = weights.scheme
    inputs: dict[str, str] = {part: ACTIVATION_TYPES[part] for part in activation_parts(scheme)}
    minimum = {"weight_minimum": "float16"} if scheme.affine else {}
    inputs |= {**weight_arrays(weights.layout, scheme.bits), "weight_scale": "float16"}
    inputs |= {**minimum, **epilogue.inputs}
    with tir.writing(name, fma, inputs, epilogue.outputs, scalars_of(epilogue)) as writer:
        sums = _QuantizedSums(writer, weights, shape)
        epilogue.begin(writer, writer.named, shape.inputs)
        walk_units(writer, shape, epilogue, writer.named, sums.accumulate)
    return writer.kernel()


class _QuantizedSums:
    """Writes the sums of some blocks of columns over all of K, for a tile of rows."""

    def __init__(self, writer: tir.KernelWriter, weights: Weights, shape: MatmulShape) -> None:
        self.writer, self.dot, self.scheme, self.shape = writer, weights.dot, weights.scheme, shape
        self.layout = weights.layout
        self.buffers = writer.named
        self.arrays = [self.buffers[name] for name in weight_arrays(self.layout, self.scheme.bits)]
        self.groups = shape.inputs // GROUP

    def accumulate(
        self, blocks: Sequence[tir.Expr], first_row: tir.Expr, totals: Sequence[tirx.Buffer]
    ) -> None:
        """Emit the loop over groups: integer dot products a half, scaled and added up in order."""
        tile = self.shape.tile
        first_groups = [tir.bind(tir.cast(block, "int64") * self.groups) for block in blocks]
        for sums in totals:
            for m in range(tile):
                tir.store(sums, tir.floats(0.0), m * tir.LANES)
        with tir.loop(0, self.groups) as g:
            places = [tir.bind(first + tir.cast(g, "int64")) for first in first_groups]
            for place in places:
                self._prefetch(place)
            products = [tir.registers(tile * tir.LANES) for _ in blocks]
            for half in range(2):
                loaded = [self._load(place, half) for place in places]
                for m in range(tile):
                    self._add_half(loaded, (first_row + m, g, half), [(p, m * tir.LANES) for p in products])
            for place, product, sums in zip(places, products, totals, strict=True):
                self._add_group(place, (first_row, g), product, sums)

    def _prefetch(self, group: tir.Expr) -> None:
        ahead = self.shape.prefetch_bytes
        for array, size in zip(self.arrays, self.layout.arrays(self.scheme.bits), strict=True):
            for line in range(0, size if ahead else 0, 64):
                tir.prefetch(array, group * size + ahead + line)

    def _load(self, group: tir.Expr, half: int) -> Loaded:
        bits = self.scheme.bits
        starts = [group * size for size in self.layout.arrays(bits)]
        return self.dot.load(HalfBlock(self.layout, self.arrays, starts, bits, half))

    def _add_half(
        self,
        loaded: Sequence[Loaded],
        place: tuple[tir.Expr, tir.Expr, int],
        products: Sequence[tuple[tirx.Buffer, int]],
    ) -> None:
        """Emit Σ x · u over half a group of one row, scaled by the half's activation scale, for each block."""
        row, g, half = place
        index = row * (self.shape.inputs // HALF) + g * 2 + half
        start = row * self.shape.inputs + g * GROUP + half * HALF
        # u - offset is never formed: the dot starts at -offset · Σ activations instead.
        first = tir.splat(tirx.const(0, "int32"))
        if self.scheme.offset:
            total = self.buffers["wide_sum" if self.scheme.wide else "sum"][index]
            first = tir.bind(tir.splat(total * -self.scheme.offset))
        sums: Sequence[tir.Expr] = [first for _ in loaded]
        if self.scheme.wide:
            zero = tir.splat(tirx.const(0, "int32"))
            high = self.dot.sums(loaded, self.buffers["values"], start, [zero for _ in loaded])
            eight = tir.splat(tirx.const(8, "int32"))
            sums = [tir.bind(op.shift_left(one, eight) + first) for one in high]
        values = self.buffers["low" if self.scheme.wide else "values"]
        scale = tir.bind(tir.splat(self.buffers["scale"][index]))
        for one, (product, m) in zip(self.dot.sums(loaded, values, start, sums), products, strict=True):
            dots = tir.cast(one, "float32x16")
            before = tir.load(product, m)
            scaled = self.writer.multiply_add(dots, scale, before) if half else dots * scale
            tir.store(product, scaled, m)

    def _add_group(
        self, group: tir.Expr, place: tuple[tir.Expr, tir.Expr], products: tirx.Buffer, totals: tirx.Buffer
    ) -> None:
        """Emit totals += weight scale · products (+ weight minimum · Σ activations), for each row."""
        first_row, g = place
        scale = _widen(self.buffers["weight_scale"], group)
        # Two bytes of activations count in 256ths; a power of two rounds nothing.
        scale = tir.bind(scale * tir.floats(1.0 / 256.0) if self.scheme.wide else scale)
        minimum = tir.bind(_widen(self.buffers["weight_minimum"], group)) if self.scheme.affine else None
        for m in range(self.shape.tile):
            lanes = m * tir.LANES
            total = self.writer.multiply_add(tir.load(products, lanes), scale, tir.load(totals, lanes))
            if minimum is not None:
                part = self.buffers["scaled_sum"][(first_row + m) * self.groups + g]
                total = self.writer.multiply_add(minimum, tir.splat(part), total)
            tir.store(totals, total, lanes)


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
