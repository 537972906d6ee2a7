"""Kernels between the matmuls: embedding, norms, gating and quantization, a workgroup for a row or a piece of one."""

from __future__ import annotations

from tvm import tirx
from tvm.tirx import op

from forerun.compiler import tir
from forerun.compiler.gpu.outputs import RowPiece, write_rows
from forerun.compiler.gpu.slabs import slabs_of
from forerun.compiler.gpu.weights import QUADS, block_words, subtracted
from forerun.compiler.gpu.words import row_field
from forerun.compiler.gpu.writer import GpuKernel, GpuWriter, Grid, signed_byte, writing
from forerun.compiler.schedules.embed import times
from forerun.compiler.schemes import FLOAT32, Scheme
from forerun.compiler.tir import LANES, Expr
from forerun.compiler.vector_math import ACTIVATIONS, GROUP
from forerun.targets.gpu import GpuTarget

_PIECE = 512  # columns that a workgroup gates


def outputs_of(quantized: bool) -> dict[str, str]:
    """The pointer through which a kernel writes rows."""
    return {"out": "uint32" if quantized else "float32"}


def mean_square_factor(
    writer: GpuWriter, values: tirx.Buffer, start: Expr, columns: int, epsilon: float
) -> Expr:
    """Return 1 / sqrt(mean of squares + epsilon) over `columns` values: a sum a thread, then those in pairs."""
    partial = writer.own(1)
    tir.store_one(partial, tirx.const(0.0, "float32"), 0)
    with writer.items(columns) as i:
        x = tir.bind(values[start + i])
        tir.store_one(partial, writer.multiply_add(x, x, partial[0]), 0)
    total = writer.sum_of(partial[0])
    share, least = tirx.const(1.0 / columns, "float32"), tirx.const(epsilon, "float32")
    mean = writer.multiply_add(total, share, least)
    return tir.bind(tirx.const(1.0, "float32") / writer.square_root(mean))


def rms_norm(
    name: str, target: GpuTarget, columns: int, epsilon: float, quantized: bool, add: bool
) -> GpuKernel:
    """Return the kernel out = x / rms(x) · weight, out += with `add`. Parameters: x, weight, then the output."""
    inputs = {"x": "float32", "weight": "float32"}
    threads, grid = target.workgroup_threads, Grid(1, 1)
    with writing(name, target.computes, inputs, outputs_of(quantized), {}, threads=threads, grid=grid) as (
        writer,
        done,
    ):
        x, weight = writer.named["x"], writer.named["weight"]
        start = tir.bind(writer.y * columns)
        factor = mean_square_factor(writer, x, start, columns, epsilon)

        def normalized(i: Expr) -> Expr:
            value = x[start + i] * factor * weight[i]
            return writer.named["out"][start + i] + value if add else value

        write_rows(writer, normalized, RowPiece(1, columns, writer.y, columns))
    return done[0]


def quantize_rows(name: str, target: GpuTarget, columns: int) -> GpuKernel:
    """Return the kernel that quantizes float32 rows. Parameters: x, then the output."""
    threads, grid = target.workgroup_threads, Grid(1, 1)
    with writing(
        name, target.computes, {"x": "float32"}, outputs_of(True), {}, threads=threads, grid=grid
    ) as (writer, done):
        start = tir.bind(writer.y * columns)
        piece = RowPiece(1, columns, writer.y, columns)
        write_rows(writer, lambda i: writer.named["x"][start + i], piece)
    return done[0]


def gated_rows(name: str, target: GpuTarget, columns: int, quantized: bool, activation: str) -> GpuKernel:
    """Return the kernel out = activation(gate) · up for gate and up side by side. Parameters: x, then the output."""
    threads, grid = target.workgroup_threads, Grid(-(-columns // _PIECE), 1)
    with writing(
        name, target.computes, {"x": "float32"}, outputs_of(quantized), {}, threads=threads, grid=grid
    ) as (writer, done):
        x, gated = writer.named["x"], writer.shared(_PIECE)
        first, start = tir.bind(writer.x * _PIECE), tir.bind(writer.y * (2 * columns))
        with writer.items(_PIECE) as i:
            # Past the end of the row the last column is computed once more.
            place = tir.bind(start + op.min(first + i, columns - 1))
            gate = tir.bind(x[place])
            tir.store_one(gated, ACTIVATIONS[activation](writer, gate) * x[place + columns], i)
        writer.meet()
        count = _PIECE if columns % _PIECE == 0 else op.min(columns - first, _PIECE)
        write_rows(writer, lambda i: gated[i], RowPiece(1, count, writer.y, columns, first))
    return done[0]


def embed_quantized(
    name: str, target: GpuTarget, scheme: Scheme, shape: tuple[int, int], factor: float
) -> GpuKernel:
    """Return the kernel hidden[row] = factor · table[token_ids[row]] for packed weights, a thread for four columns.

    `shape` is the table's: tokens, columns.

    Parameters of the kernel: row_table, weights, weight_scale [, weight_minimum], out.
    """
    minimum = {"weight_minimum": "float16"} if scheme.affine else {}
    inputs = {"row_table": "int32", "weights": "uint8", "weight_scale": "float16"} | minimum
    threads, grid = target.workgroup_threads, Grid(1, 1)
    slabs, columns = slabs_of(target, *shape, scheme), shape[1]
    with writing(
        name, target.computes, inputs, outputs_of(False), slabs.scalars, threads=threads, grid=grid
    ) as (writer, done):
        token = row_field(writer, "token_ids", writer.y)
        block, lane = tir.bind(tirx.floordiv(token, LANES)), tir.bind(tirx.floormod(token, LANES))
        first = tir.bind(slabs.within(writer, block) * (columns // GROUP))
        with slabs.when_mine(writer, block), writer.items(columns // 4) as item:
            quad = tir.bind(tirx.floormod(item, QUADS))
            group = tir.bind(first + tirx.floordiv(item, QUADS))
            values = _dequantized_quad(writer, target, scheme, (group, lane, quad))
            for i, value in enumerate(values):
                place = writer.y * columns + item * 4 + i
                tir.store_one(writer.named["out"], times(value, factor), place)
    return done[0]


def _dequantized_quad(
    writer: GpuWriter, target: GpuTarget, scheme: Scheme, where: tuple[Expr, Expr, Expr]
) -> list[Expr]:
    """Return four weights: `where` is the number of their block, their column in it, and their quad."""
    buffers, (place, lane, quad) = writer.named, where
    word = block_words(target, buffers["weights"], place, lane, scheme.bits).quad(quad)
    part = tirx.floordiv(quad * scheme.scales, QUADS)
    scale = tir.bind(writer.load_half("weight_scale", (place * scheme.scales + part) * LANES + lane))
    base = tir.bind(writer.load_half("weight_minimum", place * LANES + lane)) if scheme.affine else None
    offset, values = scheme.offset - subtracted(scheme.bits), []
    for byte in range(4):
        number = tir.cast(signed_byte(word, byte) - offset, "float32")
        values.append(scale * number if base is None else writer.multiply_add(scale, number, base))
    return values


def embed_float(name: str, target: GpuTarget, shape: tuple[int, int], factor: float) -> GpuKernel:
    """Return the same for float32 weights laid out [V/16, columns, 16]. Parameters: row_table, weights, out."""
    inputs, threads = {"row_table": "int32", "weights": "float32"}, target.workgroup_threads
    slabs, columns = slabs_of(target, *shape, FLOAT32), shape[1]
    with writing(
        name, target.computes, inputs, outputs_of(False), slabs.scalars, threads=threads, grid=Grid(1, 1)
    ) as (writer, done):
        token = row_field(writer, "token_ids", writer.y)
        block = tir.bind(tirx.floordiv(token, LANES))
        first = tir.bind(slabs.within(writer, block) * columns)
        with slabs.when_mine(writer, block), writer.items(columns) as k:
            value = writer.named["weights"][(first + k) * LANES + tirx.floormod(token, LANES)]
            tir.store_one(writer.named["out"], times(value, factor), writer.y * columns + k)
    return done[0]
