"""Elementary functions and quantization of float32 vectors, in one fixed order of operations."""

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
    {"out": "int8", "out_scale": "float32", "out_sum": "int32", "out_scaled_sum": "float32"}
)
FLOAT_OUTPUTS = MappingProxyType({"out": "float32"})

# exp(r) on |r| ≤ ln2/2: minimax coefficients of Cephes' expf (S. Moshier), relative error 2e-7 with the rest.
_EXP_COEFFICIENTS = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 0.5)
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4


def exp(writer: tir.KernelWriter, x: tir.Expr) -> tir.Expr:
    """Return e^x for a float32x16 vector, x clamped to [-87, 88]; relative error below 3e-7.

    Range reduction x = n·ln2 + r, a polynomial in r, then 2^n put together in the exponent bits: the same
    instructions on every target, so that a target's vector library cannot change a bit.
    """
    x = tir.bind(
        op.call_llvm_pure_intrin(
            "float32x16", "llvm.minnum", tir.maximum(x, tir.floats(-87.0)), tir.floats(88.0)
        )
    )
    n = tir.bind(tir.round_even(x * tir.floats(1.0 / math.log(2.0))))
    r = tir.bind(writer.multiply_add(n, tir.floats(-_LN2_HIGH), x))
    r = tir.bind(writer.multiply_add(n, tir.floats(-_LN2_LOW), r))
    p = tir.floats(_EXP_COEFFICIENTS[0])
    for coefficient in _EXP_COEFFICIENTS[1:]:
        p = tir.bind(writer.multiply_add(p, r, tir.floats(coefficient)))
    r2 = tir.bind(r * r)
    p = tir.bind(writer.multiply_add(p, r2, r) + tir.floats(1.0))
    exponent = tir.cast(n, "int32x16") + tir.splat(tirx.const(127, "int32"))
    scale = op.reinterpret("float32x16", op.shift_left(exponent, tir.splat(tirx.const(23, "int32"))))
    return tir.bind(p * scale)


def silu(writer: tir.KernelWriter, x: tir.Expr) -> tir.Expr:
    """Return x / (1 + e^-x) for a float32x16 vector."""
    negated = tir.floats(0.0) - x
    return tir.bind(x / (tir.floats(1.0) + exp(writer, negated)))


@dataclass(frozen=True)
class QuantizedRows:
    """The four buffers of quantized activations: int8 values; per 16 values their float32 scale and int32 sum; per 32
    the float32 sum of the values they stand for. Row strides: columns, columns/16, columns/16, columns/32."""

    values: tirx.Buffer
    scale: tirx.Buffer
    sum: tirx.Buffer
    scaled_sum: tirx.Buffer


def quantize_group(
    writer: tir.KernelWriter, halves: tuple[tir.Expr, tir.Expr], out: QuantizedRows, column: tir.Expr
) -> None:
    """Quantize 32 float32 values, given as two vectors, to int8: q = rint(x · 127 / max|x|) over each 16.

    Args:
        writer: the kernel.
        halves: the group's first and last 16 values.
        out: where to write.
        column: index of the group's first value in `out.values`; a multiple of 32.
    """
    zero, limit = tirx.const(0.0, "float32"), tirx.const(127.0, "float32")
    parts = []
    for half, vector in enumerate(halves):
        largest = tir.bind(tir.lanes_max(tir.absolute(vector)))
        # Values too small for the reciprocal to be finite are stored as zeros.
        inverse = op.if_then_else(largest > tirx.const(1e-30, "float32"), limit / largest, zero)
        scale = tir.bind(largest * tirx.const(1.0 / 127.0, "float32"))
        rounded = tir.round_even(vector * tir.splat(tir.bind(inverse)))
        rounded = tir.bind(tir.cast(rounded, "int32x16"))
        total = tir.bind(tir.lanes_add(rounded))
        place = tirx.floordiv(column, HALF) + half
        tir.store(out.values, tir.cast(rounded, "int8x16"), column + half * HALF)
        tir.store_one(out.scale, scale, place)
        tir.store_one(out.sum, total, place)
        parts.append((scale, tir.cast(total, "float32")))
    scaled_sum = writer.multiply_add(*parts[1], tir.bind(parts[0][0] * parts[0][1]))
    tir.store_one(out.scaled_sum, scaled_sum, tirx.floordiv(column, GROUP))
