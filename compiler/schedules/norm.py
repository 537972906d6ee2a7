"""Row-wise kernels before a matmul: RMS normalization and the stand-alone SwiGLU, each with quantization."""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx

from forerun.compiler import tir
from forerun.compiler.vector_math import (
    ACTIVATIONS,
    FLOAT_OUTPUTS,
    GROUP,
    QUANTIZED_OUTPUTS,
    QuantizedRows,
    quantize_group,
)
from forerun.targets.target import Arithmetic


def sum_of_squares(writer: tir.KernelWriter, values: tirx.Buffer, start: tir.Expr, columns: int) -> tir.Expr:
    """Return Σ x² over `columns` values (a multiple of 16): 16 running sums, then those in lane order."""
    sums = tir.registers(tir.LANES)
    tir.store(sums, tir.floats(0.0), 0)
    with tir.loop(0, columns // tir.LANES) as i:
        x = tir.bind(tir.load(values, start + i * tir.LANES))
        tir.store(sums, writer.multiply_add(x, x, tir.load(sums, 0)), 0)
    return tir.bind(tir.ordered_sum(tir.load(sums, 0)))


def reciprocal_rms(writer: tir.KernelWriter, total: tir.Expr, columns: int, epsilon: float) -> tir.Expr:
    """Return 1 / sqrt(total / columns + epsilon) from a sum of squares."""
    share, epsilon = tirx.const(1.0 / columns, "float32"), tirx.const(epsilon, "float32")
    mean = writer.multiply_add(total, share, epsilon)
    return tir.bind(tirx.const(1.0, "float32") / tir.square_root(mean))


def rms_norm(
    name: str, arithmetic: Arithmetic, columns: int, epsilon: float, quantized: bool, add: bool = False
) -> tir.Kernel:
    """Return the kernel out = x / rms(x) · weight over [rows, columns], quantized or as float32; out += with `add`.

    Parameters of the kernel: x, weight, then the outputs. Rows are shared among the threads.
    Source: Zhang & Sennrich 2019, "Root Mean Square Layer Normalization".
    """
    outputs = QUANTIZED_OUTPUTS if quantized else FLOAT_OUTPUTS
    with tir.writing(name, arithmetic, {"x": "float32", "weight": "float32"}, outputs) as writer:
        x, weight, *out = writer.buffers
        begin, end = writer.share(writer.rows)
        with tir.loop(begin, end) as row:
            start = tir.bind(row * columns)
            total = sum_of_squares(writer, x, start, columns)
            factor = tir.splat(reciprocal_rms(writer, total, columns, epsilon))

            def normalized(column: tir.Expr, start: tir.Expr = start, factor: tir.Expr = factor) -> tir.Expr:
                value = tir.bind(tir.load(x, start + column) * factor * tir.load(weight, column))
                return tir.bind(tir.load(out[0], start + column) + value) if add else value

            _write_row(writer, normalized, start, columns, out)
    return writer.kernel()


def quantize_rows(name: str, arithmetic: Arithmetic, columns: int) -> tir.Kernel:
    """Return the kernel that quantizes float32 rows [rows, columns]. Parameters of the kernel: x, then the outputs."""
    with tir.writing(name, arithmetic, {"x": "float32"}, QUANTIZED_OUTPUTS) as writer:
        x, *out = writer.buffers
        begin, end = writer.share(writer.rows)
        with tir.loop(begin, end) as row:
            start = tir.bind(row * columns)

            def at(column: tir.Expr, start: tir.Expr = start) -> tir.Expr:
                return tir.bind(tir.load(x, start + column))

            _write_row(writer, at, start, columns, out)
    return writer.kernel()


def swiglu(
    name: str, arithmetic: Arithmetic, columns: int, quantized: bool, activation: str = "silu"
) -> tir.Kernel:
    """Return the kernel out = activation(gate) · up for gate and up side by side in [rows, 2·columns].

    Parameters of the kernel: x, then the outputs. Source: Shazeer 2020, "GLU Variants Improve Transformer".
    """
    outputs = QUANTIZED_OUTPUTS if quantized else FLOAT_OUTPUTS
    with tir.writing(name, arithmetic, {"x": "float32"}, outputs) as writer:
        x, *out = writer.buffers
        begin, end = writer.share(writer.rows)
        with tir.loop(begin, end) as row:

            def gated(column: tir.Expr, row: tir.Expr = row) -> tir.Expr:
                gate = tir.bind(tir.load(x, row * (2 * columns) + column))
                return tir.bind(
                    ACTIVATIONS[activation](writer, gate)
                    * tir.load(x, row * (2 * columns) + columns + column)
                )

            _write_row(writer, gated, row * columns, columns, out)
    return writer.kernel()


def _write_row(
    writer: tir.KernelWriter,
    value_at: Callable[[tir.Expr], tir.Expr],
    start: tir.Expr,
    columns: int,
    out: list[tirx.Buffer],
) -> None:
    """Write one row of `columns` values, computed 16 at a time by `value_at(column)`; quantized if `out` is."""
    quantized = len(out) > 1
    step = GROUP if quantized else tir.LANES
    with tir.loop(0, columns // step) as i:
        column = tir.bind(i * step)
        if quantized:
            halves = (value_at(column), value_at(column + tir.LANES))
            quantize_group(writer, halves, QuantizedRows(*out), start + column)
        else:
            tir.store(out[0], value_at(column), start + column)
