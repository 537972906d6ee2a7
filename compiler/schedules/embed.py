"""The embedding lookup: one row of the table, dequantized from the layout that the matmul of a tied head reads."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

from tvm import tirx
from tvm.tirx import op

from forerun.compiler import tir
from forerun.compiler.schedules.layouts import BlockLayout, Place, block_bytes
from forerun.compiler.schemes import Scheme
from forerun.compiler.vector_math import FLOAT_OUTPUTS, GROUP
from forerun.targets.target import Arithmetic


def embed_quantized(
    name: str,
    arithmetic: Arithmetic,
    layout: BlockLayout,
    scheme: Scheme,
    columns: int,
    factor: float = 1.0,
) -> tir.Kernel:
    """Return the kernel hidden[row] = factor · table[token_ids[row]] for packed weights.

    Parameters of the kernel: token_ids, weights, weight_scale [, weight_minimum], out.
    """
    minimum = {"weight_minimum": "float16"} if scheme.affine else {}
    inputs = {"token_ids": "int32", "weights": "uint8", "weight_scale": "float16"} | minimum
    with tir.writing(name, arithmetic, inputs, FLOAT_OUTPUTS) as writer:
        token_ids, weights, weight_scale, *rest, out = writer.buffers
        groups = columns // GROUP
        begin, end = writer.share(writer.rows * groups)
        with tir.loop(begin, end) as item:
            row, g = tir.bind(tirx.floordiv(item, groups)), tir.bind(tirx.floormod(item, groups))
            token = tir.bind(token_ids[row])
            lane = tir.bind(tirx.floormod(token, tir.LANES))
            block = tir.cast(tirx.floordiv(token, tir.LANES), "int64")
            group = tir.bind(block * groups + tir.cast(g, "int64"))
            scales = [
                tir.bind(_half(weight_scale, group * scheme.scales + part, lane))
                for part in range(scheme.scales)
            ]
            base = tir.bind(_half(rest[0], group, lane)) if scheme.affine else None
            start = tir.bind(group * block_bytes(scheme.bits))
            for k in range(GROUP):
                value = _unpack(weights, start, lane, layout.places(k, scheme.bits))
                value, scale = tir.cast(value - scheme.offset, "float32"), scales[k // scheme.group]
                value = scale * value if base is None else writer.multiply_add(scale, value, base)
                tir.store_one(out, times(value, factor), row * columns + g * GROUP + k)
    return writer.kernel()


def _half(buffer: tirx.Buffer, group: tir.Expr, lane: tir.Expr) -> tir.Expr:
    return tir.cast(buffer[group * tir.LANES + tir.cast(lane, "int64")], "float32")


def _unpack(weights: tirx.Buffer, start: tir.Expr, lane: tir.Expr, places: Sequence[Place]) -> tir.Expr:
    """Return a weight put together of its bits, int32."""
    parts = []
    for place in places:
        byte = weights[start + place.offset + tir.cast(lane * place.lane_stride, "int64")]
        bits = op.shift_right(tir.cast(byte, "int32"), tirx.const(place.shift, "int32"))
        bits = op.bitwise_and(bits, tirx.const((1 << place.bits) - 1, "int32"))
        parts.append(op.shift_left(bits, tirx.const(place.first_bit, "int32")) if place.first_bit else bits)
    return reduce(op.bitwise_or, parts)


def times(value: tir.Expr, factor: float) -> tir.Expr:
    """Return factor · value, the value itself for 1."""
    return value if factor == 1.0 else value * tirx.const(factor, "float32")


def embed_float(name: str, arithmetic: Arithmetic, columns: int, factor: float = 1.0) -> tir.Kernel:
    """Return the same for float32 weights laid out [V/16, columns, 16].

    Parameters of the kernel: token_ids, weights, out.
    """
    with tir.writing(name, arithmetic, {"token_ids": "int32", "weights": "float32"}, FLOAT_OUTPUTS) as writer:
        token_ids, weights, out = writer.buffers
        begin, end = writer.share(writer.rows)
        with tir.loop(begin, end) as row:
            token = tir.bind(tir.cast(token_ids[row], "int64"))
            block = tir.bind(tirx.floordiv(token, tir.LANES) * columns)
            with tir.loop(0, columns) as k:
                place = (block + tir.cast(k, "int64")) * tir.LANES + tirx.floormod(token, tir.LANES)
                tir.store_one(out, times(weights[place], factor), row * columns + k)
    return writer.kernel()
