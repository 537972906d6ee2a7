"""RotaryEmbedding and DequantizeLinear by blocks spelled out in Relax, for graphs compiled as they stand."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from tvm import relax, te, tirx
from tvm.relax import op
from tvm.relax.frontend.onnx import onnx_frontend


def rotary_embedding(bb: relax.BlockBuilder, inputs: Any, attrs: dict[str, Any]) -> relax.Expr:
    """Convert RotaryEmbedding (opset 23): 3-D or 4-D input, halves or interleaved pairs, partial rotation.

    Source: the operator's reference implementation in the ONNX specification.
    """
    x, cos, sin, positions = [*inputs, None][:4]
    shape = [int(d) for d in x.ty.shape.values]
    flat = len(shape) == 3
    if flat:
        heads = int(attrs["num_heads"])
        x = bb.normalize(op.reshape(x, (shape[0], shape[1], heads, shape[2] // heads)))
        x = bb.normalize(op.permute_dims(x, [0, 2, 1, 3]))
    head_dim = int(x.ty.shape.values[3])
    rotated = int(attrs.get("rotary_embedding_dim", 0)) or head_dim
    pairs = bool(attrs.get("interleaved", 0))

    def compute(x: te.Tensor, cos: te.Tensor, sin: te.Tensor, *rest: te.Tensor) -> te.Tensor:
        def element(b: Any, h: Any, s: Any, d: Any) -> Any:
            half = rotated // 2
            angle = tirx.floordiv(d, 2) if pairs else tirx.floormod(d, half)
            angle = tirx.min(angle, half - 1)
            first = tirx.floormod(d, 2) == 0 if pairs else d < half
            partner = tirx.if_then_else(first, d + (1 if pairs else half), d - (1 if pairs else half))
            partner = tirx.max(tirx.min(partner, head_dim - 1), 0)
            place = (rest[0][b, s], angle) if rest else (b, s, angle)
            sign = tirx.if_then_else(first, tirx.const(-1, x.dtype), tirx.const(1, x.dtype))
            turned = x[b, h, s, d] * cos(*place) + sign * x[b, h, s, partner] * sin(*place)
            return tirx.if_then_else(d < rotated, turned, x[b, h, s, d])

        return te.compute(x.shape, element, name="rotary")

    given = [x, cos, sin] + ([positions] if positions is not None else [])
    y = bb.emit_te(compute, *given, primfunc_name_hint="rotary_embedding")
    if not flat:
        return y
    y = bb.normalize(op.permute_dims(y, [0, 2, 1, 3]))
    return op.reshape(y, tuple(shape))


def dequantize_linear(bb: relax.BlockBuilder, inputs: Any, attrs: dict[str, Any]) -> relax.Expr:
    """Convert DequantizeLinear: TVM's converter, and the blocked form that it lacks."""
    block = int(attrs.get("block_size", 0))
    if not block:
        return onnx_frontend.DequantizeLinear.get_converter(21)(bb, inputs, attrs, [])
    q, scale, zero = [*inputs, None][:3]
    axis = int(attrs.get("axis", 1)) % len(q.ty.shape.values)

    def compute(q: te.Tensor, scale: te.Tensor, *rest: te.Tensor) -> te.Tensor:
        def element(*index: Any) -> Any:
            place = [tirx.floordiv(i, block) if a == axis else i for a, i in enumerate(index)]
            value = q(*index).astype("int32")
            if rest:
                value = value - rest[0](*place).astype("int32")
            return value.astype(scale.dtype) * scale(*place)

        return te.compute(q.shape, element, name="dequantized")

    given = [q, scale] + ([zero] if zero is not None else [])
    return bb.emit_te(compute, *given, primfunc_name_hint="dequantize_blocked")


def rms_normalization(bb: relax.BlockBuilder, inputs: Any, attrs: dict[str, Any]) -> relax.Expr:
    """Convert RMSNormalization: TVM's converter, which cannot normalize over every axis; then as one row."""
    x, weight = inputs[0], inputs[1]
    rank = len(x.ty.shape.values)
    convert = onnx_frontend.RMSNormalization.get_converter(23)
    if int(attrs.get("axis", -1)) % rank:
        return convert(bb, inputs, attrs, [])
    shape = [int(d) for d in x.ty.shape.values]
    size = math.prod(shape)
    flat = bb.normalize(op.reshape(x, (1, size)))
    full = bb.normalize(op.broadcast_to(weight, shape))
    row = bb.normalize(op.reshape(full, (size,)))
    normalized = bb.normalize(convert(bb, [flat, row], {**attrs, "axis": 1}, []))
    return op.reshape(normalized, tuple(shape))


def constant(bb: relax.BlockBuilder, inputs: Any, attrs: dict[str, Any]) -> relax.Expr:
    """Convert Constant: TVM's converter, and the attribute forms that it lacks (numbers and lists of them)."""
    for name, dtype in (
        ("value_ints", "int64"),
        ("value_int", "int64"),
        ("value_floats", "float32"),
        ("value_float", "float32"),
    ):
        if name in attrs:
            return relax.const(np.asarray(attrs[name], dtype))
    return onnx_frontend.Constant.get_converter(13)(bb, inputs, attrs, [])


CONVERTERS: Mapping[str, Callable[..., relax.Expr]] = MappingProxyType(
    {
        "Constant": constant,
        "DequantizeLinear": dequantize_linear,
        "RMSNormalization": rms_normalization,
        "RotaryEmbedding": rotary_embedding,
    }
)
