"""The matmul kernel for few rows: y = x · Wᵀ with x in registers' reach and W streamed once per tile of rows.

A thread owns a contiguous share of the weights. For each unit of 16 (or, gated, 64) weight rows it walks the
rows in tiles of up to 8, keeping 16 sums a row in registers while it goes through K in order: per group of 32
inputs two exact integer dot products, one a half, then multiply-adds by the scales. The order never depends on the
tile, so a row's sums are the same bits in any tile, call or thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
from forerun.targets.target import Arithmetic


@dataclass(frozen=True)
class MatmulShape:
    """W is [columns, inputs]; a kernel of this shape handles `tile` rows per pass over a weight unit.

    `prefetch_bytes` is how far ahead of their use quantized weights are asked for, 0 = leave it to the hardware.
    `whole_groups` finishes a group of inputs for one row before the next, with all the group's weights in registers;
    else half a group's weights at a time meet all the rows. The order of each row's additions is the same.
    `unit_blocks` and `threads` are those of a device's workgroup (`Tiling`).
    """

    columns: int
    inputs: int
    tile: int
    prefetch_bytes: int = 0
    whole_groups: bool = False
    unit_blocks: int = 0
    threads: int = 0

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


# Rows of an array of sums: TVM takes arrays of a kilobyte, which are 16 rows, from a heap, not from the stack.
ARRAY_ROWS = 8


class RowSums:
    """Sums of a tile of rows with 16 columns in registers: float32 arrays [up to 8 rows, 16]."""

    def __init__(self, rows: int) -> None:
        starts = range(0, rows, ARRAY_ROWS)
        self.sizes = tuple(min(ARRAY_ROWS, rows - start) for start in starts)
        self.arrays = tuple(tir.registers(size * tir.LANES) for size in self.sizes)

    def load(self, m: int) -> tir.Expr:
        """Return row m."""
        return tir.load(self.arrays[m // ARRAY_ROWS], m % ARRAY_ROWS * tir.LANES)

    def store(self, m: int, value: tir.Expr) -> None:
        """Set row m."""
        tir.store(self.arrays[m // ARRAY_ROWS], value, m % ARRAY_ROWS * tir.LANES)


AccumulateBlock = Callable[[tir.Expr, tir.Expr, RowSums], None]


def walk_units(
    writer: tir.KernelWriter,
    shape: MatmulShape,
    epilogue: Epilogue,
    buffers: dict[str, tirx.Buffer],
    accumulate: AccumulateBlock,
) -> None:
    """Emit the loops over this thread's units and over tiles of rows.

    `accumulate(block, first_row, totals)` emits the sums of one block of 16 columns into `totals`.
    """
    units = shape.blocks // epilogue.blocks_per_unit if epilogue.listed is None else writer.scalars[0]
    begin, end = writer.share(units)
    tiles = tir.bind(tirx.floordiv(writer.rows + (shape.tile - 1), shape.tile))
    with tir.loop(begin, end) as place, tir.loop(0, tiles) as index:
        unit = place if epilogue.listed is None else tir.bind(buffers[epilogue.listed][place])
        first_row = tir.bind(index * shape.tile)
        totals = tuple(RowSums(shape.tile) for _ in range(epilogue.blocks_per_unit))
        for block, sums in enumerate(totals):
            accumulate(unit * epilogue.blocks_per_unit + block, first_row, sums)
        for part, rows in enumerate(totals[0].sizes):
            arrays = tuple(sums.arrays[part] for sums in totals)
            epilogue.write(writer, buffers, Tile(arrays, rows, first_row + part * ARRAY_ROWS, unit, place))


def scalars_of(epilogue: Epilogue) -> Mapping[str, str]:
    """The scalar parameters of a matmul: how many units are listed, where they are."""
    return {} if epilogue.listed is None else {"item_count": "int32"}


@contextmanager
def writing_quantized(
    name: str, arithmetic: Arithmetic, scheme: Scheme, epilogue: Epilogue
) -> Iterator[tir.KernelWriter]:
    """Open a kernel for quantized weights and activations.

    Parameters of the kernel: the `activation_parts` of the scheme; weights, weight_scale [, weight_minimum]; then
    the epilogue's.
    """
    inputs: dict[str, str] = {part: ACTIVATION_TYPES[part] for part in activation_parts(scheme)}
    minimum = {"weight_minimum": "float16"} if scheme.affine else {}
    inputs |= {"weights": "uint8", "weight_scale": "float16", **minimum, **epilogue.inputs}
    with tir.writing(name, arithmetic, inputs, epilogue.outputs, scalars_of(epilogue)) as writer:
        yield writer


def quantized_matmul(
    name: str, arithmetic: Arithmetic, dot: Dot, scheme: Scheme, shape: MatmulShape, epilogue: Epilogue
) -> tir.Kernel:
    """Return the kernel for quantized weights and activations by one of the dots."""
    with writing_quantized(name, arithmetic, scheme, epilogue) as writer:
        sums = _DotSums(writer, dot, scheme, shape)
        walk_units(writer, shape, epilogue, writer.named, sums.accumulate)
    return writer.kernel()


@dataclass(frozen=True)
class Group:
    """A group of 32 inputs of a block: its number within a row, its place in the weights, its scales [and minimum]."""

    number: tir.Expr
    place: tir.Expr
    scales: tuple[tir.Expr, ...]
    minimum: tir.Expr | None


# Half a group of a row: the row, the group's number, and which half it is (0 or 1).
Place = tuple[tir.Expr, tir.Expr, int]


class QuantizedSums:
    """Writes the sums of one block of columns over all of K, for a tile of rows.

    The integer products are a subclass's (`add_group`); all that is rounded is written here, once.
    """

    def __init__(self, writer: tir.KernelWriter, scheme: Scheme, shape: MatmulShape) -> None:
        self.writer, self.scheme, self.shape = writer, scheme, shape
        self.buffers = writer.named
        self.groups = shape.inputs // GROUP

    def accumulate(self, block: tir.Expr, first_row: tir.Expr, totals: RowSums) -> None:
        """Emit the loop over groups: integer dot products a half, scaled and added up in order."""
        for m in range(self.shape.tile):
            totals.store(m, tir.floats(0.0))
        first_group = tir.bind(tir.cast(block, "int64") * self.groups)
        with tir.loop(0, self.groups) as g:
            self.add_group(self._open(g, tir.bind(first_group + tir.cast(g, "int64"))), first_row, totals)

    def add_group(self, group: Group, first_row: tir.Expr, totals: RowSums) -> None:
        """Emit a group's products with every row of the tile, scaled and added to `totals`."""
        raise NotImplementedError

    def _open(self, number: tir.Expr, place: tir.Expr) -> Group:
        """Emit the prefetches for a group and load its scales."""
        size, ahead = block_bytes(self.scheme.bits), self.shape.prefetch_bytes
        for line in range(0, size if ahead else 0, 64):
            tir.prefetch(self.buffers["weights"], place * size + ahead + line)
        names = ["weight_scale", "weight_minimum"] if self.scheme.affine else ["weight_scale"]
        first = place * self.scheme.scales
        for name in names if ahead else ():
            tir.prefetch(self.buffers[name], (first + ahead // size * self.scheme.scales) * tir.LANES)
        scales = (self._open_scale(first + part) for part in range(self.scheme.scales))
        minimum = self._read_halves("weight_minimum", place) if self.scheme.affine else None
        return Group(number, place, tuple(scales), minimum if minimum is None else tir.bind(minimum))

    def _open_scale(self, place: tir.Expr) -> tir.Expr:
        # Two bytes of activations count in 256ths; a power of two rounds nothing.
        scale = self._read_halves("weight_scale", place)
        return tir.bind(scale * tir.floats(1.0 / 256.0) if self.scheme.wide else scale)

    def _read_halves(self, name: str, place: tir.Expr) -> tir.Expr:
        return self.writer.to_floats(tir.load(self.buffers[name], place * tir.LANES))

    def ends_scale(self, half: int) -> bool:
        """Return whether a scale's inputs end with this half of a group."""
        return half == 1 or self.scheme.scales == 2

    def half(self, dots: tir.Expr, place: Place, before: tir.Expr | None) -> tir.Expr:
        """Return Σ x · (u - offset) over half a group of one row, scaled by its activation scale, plus `before`."""
        scale = tir.splat(self.buffers["scale"][self.index(place)])
        dots = tir.cast(dots, "float32x16")
        return tir.bind(dots * scale if before is None else self.writer.multiply_add(dots, scale, before))

    def index(self, place: Place) -> tir.Expr:
        """Return where the half group's scale and sums are among those of all rows."""
        row, g, half = place
        return row * (self.shape.inputs // HALF) + g * 2 + half

    def start(self, place: Place) -> tir.Expr:
        """Return where the half group's activations start."""
        row, g, half = place
        return row * self.shape.inputs + g * GROUP + half * HALF

    def scaled(self, group: Group, half: int, row: tir.Expr, products: tir.Expr, total: tir.Expr) -> tir.Expr:
        """Return total + weight scale · products (+ weight minimum · Σ activations); `half` is the scale's last."""
        total = self.writer.multiply_add(products, group.scales[half * self.scheme.scales // 2], total)
        if group.minimum is None:
            return total
        scaled_sum = self.buffers["scaled_sum"][row * self.groups + group.number]
        return self.writer.multiply_add(group.minimum, tir.splat(scaled_sum), total)


class _DotSums(QuantizedSums):
    """Products by one of the dots: a row at a time, the weights in registers."""

    def __init__(self, writer: tir.KernelWriter, dot: Dot, scheme: Scheme, shape: MatmulShape) -> None:
        super().__init__(writer, scheme, shape)
        self.dot = dot

    def add_group(self, group: Group, first_row: tir.Expr, totals: RowSums) -> None:
        """Emit the products of all rows with a half, then with the other; or of one row after the other."""
        rows = range(self.shape.tile)
        loaded: dict[int, Loaded] = {}
        for some in [[m] for m in rows] if self.shape.whole_groups else [list(rows)]:
            self._add_rows(group, first_row, some, loaded, totals)

    def _add_rows(
        self,
        group: Group,
        first_row: tir.Expr,
        rows: Sequence[int],
        loaded: dict[int, Loaded],
        totals: RowSums,
    ) -> None:
        """Emit the group's products for some rows of the tile; halves of the weights are loaded when first needed."""
        bits, products = self.scheme.bits, dict[int, tir.Expr]()
        for half in range(2):
            if half not in loaded:
                start = group.place * block_bytes(bits)
                loaded[half] = self.dot.load(HalfBlock(self.buffers["weights"], start, bits, half))
            for m in rows:
                place = (first_row + m, group.number, half)
                products[m] = self.half(self._dots(loaded[half], place), place, products.get(m))
            for m in rows if self.ends_scale(half) else ():
                scaled = self.scaled(group, half, first_row + m, products.pop(m), totals.load(m))
                totals.store(m, scaled)

    def _dots(self, loaded: Loaded, place: Place) -> tir.Expr:
        """Return Σ x · (u - offset) of 16 columns."""
        start = self.start(place)
        # What the dot leaves of u - offset is never formed: it starts at -offset · Σ activations instead.
        first, offset = (
            tirx.const(0, "int32"),
            self.scheme.offset - self.dot.subtracted.get(self.scheme.bits, 0),
        )
        if offset:
            sums = self.buffers["wide_sum" if self.scheme.wide else "sum"]
            first = sums[self.index(place)] * -offset
        first = tir.bind(tir.splat(first))
        if not self.scheme.wide:
            return self.dot.add(loaded, self.buffers["values"], start, first)
        zero, eight = (tir.splat(tirx.const(value, "int32")) for value in (0, 8))
        high = self.dot.add(loaded, self.buffers["values"], start, zero)
        return self.dot.add(loaded, self.buffers["low"], start, tir.bind(op.shift_left(high, eight) + first))


def float_matmul(name: str, arithmetic: Arithmetic, shape: MatmulShape, epilogue: Epilogue) -> tir.Kernel:
    """Return the kernel for float32 weights, laid out [N/16, K, 16], and float32 activations.

    Parameters of the kernel: values; weights; then the epilogue's.
    """
    inputs = {"values": "float32", "weights": "float32", **epilogue.inputs}
    with tir.writing(name, arithmetic, inputs, epilogue.outputs, scalars_of(epilogue)) as writer:
        buffers = writer.named

        def accumulate(block: tir.Expr, first_row: tir.Expr, totals: RowSums) -> None:
            _accumulate_floats(writer, shape, buffers, (block, first_row, totals))

        walk_units(writer, shape, epilogue, buffers, accumulate)
    return writer.kernel()


def _accumulate_floats(
    writer: tir.KernelWriter,
    shape: MatmulShape,
    buffers: dict[str, tirx.Buffer],
    place: tuple[tir.Expr, tir.Expr, RowSums],
) -> None:
    block, first_row, totals = place
    first = tir.bind(tir.cast(block, "int64") * shape.inputs)
    for m in range(shape.tile):
        totals.store(m, tir.floats(0.0))
    with tir.loop(0, shape.inputs) as k:
        column = tir.bind(tir.load(buffers["weights"], (first + tir.cast(k, "int64")) * tir.LANES))
        for m in range(shape.tile):
            value = tir.splat(buffers["values"][(first_row + m) * shape.inputs + k])
            totals.store(m, writer.multiply_add(value, column, totals.load(m)))
