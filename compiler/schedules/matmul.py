"""The matmul kernel for few rows: y = x · Wᵀ with x in registers' reach and W streamed once per tile of rows.

A thread owns a contiguous share of the weights. For each unit of 16 (or, gated, 64) weight rows it walks the
rows in tiles of up to 8, keeping 16 sums a row in registers while it goes through K in order: per group of 32
inputs two exact integer dot products, one a half, then multiply-adds by the scales. The order never depends on the
tile, so a row's sums are the same bits in any tile, call or thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from tvm import tirx
from tvm.tirx import op

from forerun.compiler import tir
from forerun.compiler.schedules.dots import Dot, HalfRows, block_bytes
from forerun.compiler.schedules.epilogues import Epilogue, Tile
from forerun.compiler.schemes import Scheme
from forerun.compiler.vector_math import GROUP, HALF, QUANTIZED_OUTPUTS


@dataclass(frozen=True)
class MatmulShape:
    """W is [columns, inputs]; a kernel of this shape handles `tile` rows per pass over a weight unit.

    `prefetch_bytes` is how far ahead of their use quantized weights are asked for, 0 = leave it to the hardware.
    """

    columns: int
    inputs: int
    tile: int
    prefetch_bytes: int = 0

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


AccumulateBlock = Callable[[tir.Expr, tir.Expr, tirx.Buffer], None]


def walk_units(
    writer: tir.KernelWriter,
    shape: MatmulShape,
    epilogue: Epilogue,
    buffers: dict[str, tirx.Buffer],
    accumulate: AccumulateBlock,
) -> None:
    """Emit the loops over this thread's units and over tiles of rows.

    `accumulate(block, first_row, totals)` emits the sums of one block of 16 columns into `totals` [tile, 16].
    """
    units = shape.blocks // epilogue.blocks_per_unit if epilogue.listed is None else writer.scalars[0]
    begin, end = writer.share(units)
    tiles = tir.bind(tirx.floordiv(writer.rows + (shape.tile - 1), shape.tile))
    with tir.loop(begin, end) as place, tir.loop(0, tiles) as index:
        unit = place if epilogue.listed is None else tir.bind(buffers[epilogue.listed][place])
        first_row = tir.bind(index * shape.tile)
        # One array a block: TVM takes arrays of over a kilobyte from a heap, not from the stack.
        totals = tuple(tir.registers(shape.tile * tir.LANES) for _ in range(epilogue.blocks_per_unit))
        for block, sums in enumerate(totals):
            accumulate(unit * epilogue.blocks_per_unit + block, first_row, sums)
        epilogue.write(writer, buffers, Tile(totals, shape.tile, first_row, unit, place))


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
        buffers = writer.named

        def accumulate(block: tir.Expr, first_row: tir.Expr, totals: tirx.Buffer) -> None:
            _accumulate_quantized(writer, dot, scheme, shape, buffers, (block, first_row, totals))

        walk_units(writer, shape, epilogue, buffers, accumulate)
    return writer.kernel()


def _accumulate_quantized(
    writer: tir.KernelWriter,
    dot: Dot,
    scheme: Scheme,
    shape: MatmulShape,
    buffers: dict[str, tirx.Buffer],
    place: tuple[tir.Expr, tir.Expr, tirx.Buffer],
) -> None:
    block, first_row, totals = place
    groups = shape.inputs // GROUP
    first_group = tir.bind(tir.cast(block, "int64") * groups)
    for m in range(shape.tile):
        tir.store(totals, tir.floats(0.0), m * tir.LANES)
    with tir.loop(0, groups) as g:
        weight_group = tir.bind(first_group + tir.cast(g, "int64"))
        for line in range(0, block_bytes(scheme.bits) if shape.prefetch_bytes else 0, 64):
            ahead = shape.prefetch_bytes + line
            tir.prefetch(buffers["weights"], weight_group * block_bytes(scheme.bits) + ahead)
        products = _group_products(writer, dot, scheme, shape, buffers, (weight_group, first_row, g))
        scale = _widen(buffers["weight_scale"], weight_group)
        # Two bytes of activations count in 256ths; a power of two rounds nothing.
        scale = tir.bind(scale * tir.floats(1.0 / 256.0) if scheme.wide else scale)
        minimum = tir.bind(_widen(buffers["weight_minimum"], weight_group)) if scheme.affine else None
        for m in range(shape.tile):
            total = writer.multiply_add(
                tir.load(products, m * tir.LANES), scale, tir.load(totals, m * tir.LANES)
            )
            if minimum is not None:
                part = buffers["scaled_sum"][(first_row + m) * groups + g]
                total = writer.multiply_add(minimum, tir.splat(part), total)
            tir.store(totals, total, m * tir.LANES)


def _group_products(
    writer: tir.KernelWriter,
    dot: Dot,
    scheme: Scheme,
    shape: MatmulShape,
    buffers: dict[str, tirx.Buffer],
    place: tuple[tir.Expr, tir.Expr, tir.Expr],
) -> tirx.Buffer:
    """Emit Σ x · u over one group for each row of the tile, as float32 registers [tile, 16].

    Each half of the group is an exact integer dot product, scaled by that half's activation scale.
    """
    weight_group, first_row, g = place
    products = tir.registers(shape.tile * tir.LANES)
    for half in range(2):
        sums = tir.registers(shape.tile * tir.LANES, "int32")
        row_half = [(first_row + m) * (shape.inputs // HALF) + g * 2 + half for m in range(shape.tile)]
        starts = tuple((first_row + m) * shape.inputs + g * GROUP + half * HALF for m in range(shape.tile))
        block = weight_group * block_bytes(scheme.bits)
        for m in range(shape.tile):
            # u - offset is never formed: the dot starts at -offset · Σ activations instead.
            start = tirx.const(0, "int32")
            if not scheme.affine and not scheme.wide:
                start = buffers["sum"][row_half[m]] * -scheme.offset
            tir.store(sums, tir.splat(start), m * tir.LANES)
        dot.accumulate(
            scheme.bits, buffers["weights"], block, HalfRows(buffers["values"], starts, half), sums
        )
        if scheme.wide:
            for m in range(shape.tile):
                start = tir.splat(buffers["wide_sum"][row_half[m]] * -scheme.offset)
                high = op.shift_left(tir.load(sums, m * tir.LANES), tir.splat(tirx.const(8, "int32")))
                tir.store(sums, high + start, m * tir.LANES)
            dot.accumulate(
                scheme.bits, buffers["weights"], block, HalfRows(buffers["low"], starts, half), sums
            )
        for m in range(shape.tile):
            dots = tir.cast(tir.load(sums, m * tir.LANES), "float32x16")
            scale = tir.splat(buffers["scale"][row_half[m]])
            before = tir.load(products, m * tir.LANES)
            tir.store(
                products,
                dots * scale if half == 0 else writer.multiply_add(dots, scale, before),
                m * tir.LANES,
            )
    return products


def _widen(halves: tirx.Buffer, group: tir.Expr) -> tir.Expr:
    return tir.cast(tir.load(halves, group * tir.LANES), "float32x16")


def float_matmul(name: str, fma: bool, shape: MatmulShape, epilogue: Epilogue) -> tir.Kernel:
    """Return the kernel for float32 weights, laid out [N/16, K, 16], and float32 activations.

    Parameters of the kernel: values; weights; then the epilogue's.
    """
    inputs = {"values": "float32", "weights": "float32", **epilogue.inputs}
    with tir.writing(name, fma, inputs, epilogue.outputs, scalars_of(epilogue)) as writer:
        buffers = writer.named

        def accumulate(block: tir.Expr, first_row: tir.Expr, totals: tirx.Buffer) -> None:
            first = tir.bind(tir.cast(block, "int64") * shape.inputs)
            for m in range(shape.tile):
                tir.store(totals, tir.floats(0.0), m * tir.LANES)
            with tir.loop(0, shape.inputs) as k:
                column = tir.bind(tir.load(buffers["weights"], (first + tir.cast(k, "int64")) * tir.LANES))
                for m in range(shape.tile):
                    value = tir.splat(buffers["values"][(first_row + m) * shape.inputs + k])
                    total = writer.multiply_add(value, column, tir.load(totals, m * tir.LANES))
                    tir.store(totals, total, m * tir.LANES)

        walk_units(writer, shape, epilogue, buffers, accumulate)
    return writer.kernel()
