"""ONNX operators that TVM's importer lacks or gets wrong.

Each has up to two forms. A *composite* keeps the operator as one external call named `forerun.…`, which the fusion
passes recognize. A *converter* spells the same operator out in Relax, for graphs that are compiled as they stand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import tvm
from tvm import relax

from forerun.compiler import onnx_attention, onnx_operators
from forerun.compiler.schemes import SCHEMES

Converter = Callable[[relax.BlockBuilder, Any, dict[str, Any]], relax.Expr]


def external(
    name: str, inputs: list[relax.Expr], types: list[relax.TensorType], attrs: dict[str, Any]
) -> relax.Call:
    """Return a call of the external function `name`; None among the inputs (left out) is not allowed."""
    detail = tvm.ir.make_node("ir.DictAttrs", **attrs)
    ty = types[0] if len(types) == 1 else relax.TupleType(types)
    return relax.Call(relax.ExternFunc(name), inputs, attrs=detail, ty_args=[ty])


def rotary_embedding(bb: relax.BlockBuilder, inputs: Any, attrs: dict[str, Any]) -> relax.Expr:
    """Keep RotaryEmbedding whole: inputs x [1, H, M, d], cos, sin [C, d/2], positions [1, M]."""
    x = inputs[0]
    plain = {"interleaved": attrs.get("interleaved", 0), "dim": attrs.get("rotary_embedding_dim", 0)}
    return external("forerun.rotary", [item for item in inputs if item is not None], [x.ty], plain)


def attention(bb: relax.BlockBuilder, inputs: Any, attrs: dict[str, Any]) -> relax.Expr:
    """Keep Attention whole: inputs q [1, H, M, d], k, v [1, Kv, M, d], mask, past key and value [1, Kv, P, d]."""
    q, k, v, mask, past_key, past_value = (list(inputs) + [None] * 6)[:6]
    present = []
    for new, past in ((k, past_key), (v, past_value)):
        shape = list(new.ty.shape.values)
        shape[2] = shape[2] + past.ty.shape.values[2]
        present.append(relax.TensorType(shape, new.ty.dtype))
    dim = int(q.ty.shape.values[3])
    kept = {"scale": float(attrs.get("scale", dim**-0.5)), "is_causal": int(attrs.get("is_causal", 0))}
    kept["softcap"] = float(attrs.get("softcap", 0.0))
    return external("forerun.attention", [q, k, v, mask, past_key, past_value], [q.ty, *present], kept)


def gather(bb: relax.BlockBuilder, inputs: Any, attrs: dict[str, Any]) -> relax.Expr:
    """Keep Gather one lookup: TVM's converter adds arithmetic for negative indices, which token ids never are."""
    return relax.op.take(inputs[0], inputs[1], axis=int(attrs.get("axis", 0)))


def _dequantize(name: str) -> Converter:
    def keep(bb: relax.BlockBuilder, inputs: Any, attrs: dict[str, Any]) -> relax.Expr:
        shape = inputs[0].ty.shape
        return external(f"forerun.{name}", list(inputs), [relax.TensorType(shape, "float32")], {})

    return keep


COMPOSITES: Mapping[str, Converter] = MappingProxyType(
    {
        "RotaryEmbedding": rotary_embedding,
        "Attention": attention,
        "Gather": gather,
        **{function: _dequantize(function) for function, _ in SCHEMES},
    }
)

CONVERTERS: Mapping[str, Converter] = MappingProxyType(
    {"Attention": onnx_attention.attention, **onnx_operators.CONVERTERS}
)
