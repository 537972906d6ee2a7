"""Elementary functions of float32 numbers or vectors, and quantization of vectors, in one fixed order of operations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType

from tvm import tirx
from tvm.tirx import op

from forerun.compiler import tir

GROUP = 32  # inputs that share one scale in weights

# Activations have a scale for every 16: it halves their error (mean KL of SmolLM2 0.0026 → 0.0014) for two more
# float operations beside the eight dot products of a group.
HALF = GROUP // 2

# The pointers through which a kernel writes activations, quantized or not.
QUANTIZED_OUTPUTS = MappingProxyType(
    {
        "out": "int8",
        "out_low": "int8",
        "out_scale": "float32",
        "out_sum": "int32",
        "out_wide_sum": "int32",
        "out_scaled_sum": "float32",
    }
)
FLOAT_OUTPUTS = MappingProxyType({"out": "float32"})

# exp(r) on |r| ≤ ln2/2: minimax coefficients of Cephes' expf (S. Moshier), relative error 2e-7 with the rest.
_EXP_COEFFICIENTS = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 0.5)
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4


def exp(writer: tir.Arithmetician, x: tir.Expr) -> tir.Expr:
    """Return e^x for float32 numbers, x clamped to [-87, 88]; relative error below 3e-7.

    Range reduction x = n·ln2 + r, a polynomial in r, then 2^n put together in the exponent bits: the same
    instructions on every target, so that a target's vector library cannot change a bit.
    """
    x = tir.bind(writer.minimum(writer.maximum(x, tir.like(x, -87.0)), tir.like(x, 88.0)))
    n = tir.bind(writer.round_even(x * tir.like(x, 1.0 / math.log(2.0))))
    r = tir.bind(writer.multiply_add(n, tir.like(x, -_LN2_HIGH), x))
    r = tir.bind(writer.multiply_add(n, tir.like(x, -_LN2_LOW), r))
    p = tir.like(x, _EXP_COEFFICIENTS[0])
    for coefficient in _EXP_COEFFICIENTS[1:]:
        p = tir.bind(writer.multiply_add(p, r, tir.like(x, coefficient)))
    r2 = tir.bind(r * r)
    p = tir.bind(writer.multiply_add(p, r2, r) + tir.like(x, 1.0))
    whole = tir.cast(n, tir.dtype_of(n).replace("float", "int"))
    scale = op.reinterpret(tir.dtype_of(x), op.shift_left(whole + tir.like(whole, 127), tir.like(whole, 23)))
    return tir.bind(p * scale)


def silu(writer: tir.Arithmetician, x: tir.Expr) -> tir.Expr:
    """Return x / (1 + e^-x) for float32 numbers."""
    negated = tir.like(x, 0.0) - x
    return tir.bind(x / (tir.like(x, 1.0) + exp(writer, negated)))


def gelu_tanh(writer: tir.Arithmetician, x: tir.Expr) -> tir.Expr:
    """Return x · (1 + tanh(√(2/π) · (x + 0.044715 x³))) / 2 for float32 numbers (Hendrycks & Gimpel 2016).

    As x · sigmoid(2y), y the argument of tanh: (1 + tanh y) / 2 is that sigmoid.
    """
    double = 2.0 * math.sqrt(2.0 / math.pi)
    square = tir.bind(x * x)
    inner = writer.multiply_add(square, tir.like(x, -double * 0.044715), tir.like(x, -double))
    return tir.bind(x / (tir.like(x, 1.0) + exp(writer, tir.bind(inner * x))))


# The activations of a gated feed-forward sublayer.
ACTIVATIONS = MappingProxyType({"silu": silu, "gelu_tanh": gelu_tanh})

# What a gated sublayer with each of them is called (Shazeer 2020).
GATED_NAMES = MappingProxyType({"silu": "swiglu", "gelu_tanh": "geglu"})


@dataclass(frozen=True)
class QuantizedRows:
    """The buffers of quantized activations, x ≈ scale · (values + low/256): two bytes of a 16-bit number.

    Weights of 4 bits are multiplied by `values` alone, 8-bit ones, which take twice as long to read anyway, by both.
    Per 16 columns: float32 `scale`, int32 `sum` of values, int32 `wide_sum` of 256·values + low. Per 32 columns:
    float32 `scaled_sum` of scale · values. All row-major.
    """

    values: tirx.Buffer
    low: tirx.Buffer
    scale: tirx.Buffer
    sum: tirx.Buffer
    wide_sum: tirx.Buffer
    scaled_sum: tirx.Buffer


def quantize_group(
    writer: tir.KernelWriter, halves: tuple[tir.Expr, tir.Expr], out: QuantizedRows, column: tir.Expr
) -> None:
    """Quantize 32 float32 values, given as two vectors: rint(x · 256 · 127 / max|x|) over each 16, as two bytes.

    Args:
        writer: the kernel.
        halves: the group's first and last 16 values.
        out: where to write.
        column: index of the group's first value in `out.values`; a multiple of 32.
    """
    parts = []
    for half, vector in enumerate(halves):
        largest = tir.bind(tir.lanes_max(tir.absolute(vector)))
        # Values too small for the reciprocal to be finite are stored as zeros.
        limit, zero = tirx.const(127.0 * 256.0, "float32"), tirx.const(0.0, "float32")
        inverse = tir.bind(op.if_then_else(largest > tirx.const(1e-30, "float32"), limit / largest, zero))
        wide = tir.bind(tir.cast(writer.round_even(vector * tir.splat(inverse)), "int32x16"))
        eight = tir.splat(tirx.const(8, "int32"))
        high = tir.bind(op.shift_right(wide + tir.splat(tirx.const(128, "int32")), eight))
        low = wide - op.shift_left(high, eight)
        scale = tir.bind(largest * tirx.const(1.0 / 127.0, "float32"))
        total = tir.bind(tir.lanes_add(high))
        place = tirx.floordiv(column, HALF) + half
        tir.store(out.values, tir.cast(high, "int8x16"), column + half * HALF)
        tir.store(out.low, tir.cast(low, "int8x16"), column + half * HALF)
        tir.store_one(out.scale, scale, place)
        tir.store_one(out.sum, total, place)
        tir.store_one(out.wide_sum, tir.lanes_add(wide), place)
        parts.append((scale, tir.cast(total, "float32")))
    scaled_sum = writer.multiply_add(*parts[1], tir.bind(parts[0][0] * parts[0][1]))
    tir.store_one(out.scaled_sum, scaled_sum, tirx.floordiv(column, GROUP))
