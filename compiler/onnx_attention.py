"""ONNX Attention spelled out in Relax: the general operator, where no cache takes over its past and present."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm import relax, te, tirx
from tvm.relax import op

from forerun.errors import CompileError

_INPUTS = ("q", "k", "v", "mask", "past_key", "past_value", "nonpad")


@dataclass(frozen=True)
class _Sizes:
    """Static sizes of the 4-D form: batch, query heads, key/value heads, new rows, keys, value head size."""

    batch: int
    heads: int
    kv_heads: int
    rows: int
    keys: int
    value_dim: int


def attention(bb: relax.BlockBuilder, inputs: Any, attrs: dict[str, Any]) -> relax.Expr:
    """Convert Attention (opset 23 and 24): 3-D or 4-D, grouped heads, masks, causal, past, softcap, all outputs.

    Source: the operator's reference implementation in the ONNX specification.

    Raises:
        CompileError: an attribute or element type that is not supported.
    """
    given = dict(zip(_INPUTS, [*inputs, *[None] * (len(_INPUTS) - len(inputs))], strict=True))
    _check(given, attrs)
    flat = len(given["q"].ty.shape.values) == 3
    q, k, v = (_heads(bb, given[name], attrs, name) for name in ("q", "k", "v"))
    if given["past_key"] is not None:
        k = bb.normalize(op.concat([given["past_key"], k], axis=2))
        v = bb.normalize(op.concat([given["past_value"], v], axis=2))
    past = 0 if given["past_key"] is None else int(given["past_key"].ty.shape.values[2])
    batch, heads, rows, dim = _static(q)
    sizes = _Sizes(batch, heads, _static(k)[1], rows, _static(k)[2], _static(v)[3])
    scale = float(attrs.get("scale", dim**-0.5)) ** 0.5
    products = _products(bb, q, k, sizes, scale)
    scores = {0: products}
    capped = _softcap(bb, products, float(attrs.get("softcap", 0.0)))
    masked = _masked(bb, capped, given, sizes, bool(attrs.get("is_causal", 0)), past)
    scores[1], scores[2] = capped, masked
    weights = scores[3] = bb.normalize(_softmax(bb, masked))
    y = _weighted(bb, weights, v, sizes)
    if flat:
        y = bb.normalize(op.permute_dims(y, [0, 2, 1, 3]))
        y = bb.normalize(op.reshape(y, (batch, rows, heads * sizes.value_dim)))
    outputs = [y, k, v, scores[int(attrs.get("qk_matmul_output_mode", 0))]]
    wanted = attrs["tvm_custom"]["num_outputs"]
    return outputs[0] if wanted == 1 else relax.Tuple(outputs[:wanted])


def _check(given: dict[str, Any], attrs: dict[str, Any]) -> None:
    if attrs.get("softmax_precision", 1) != 1:
        raise CompileError("Attention with softmax_precision other than float32 is not supported")
    for window in ("left_window_size", "right_window_size"):
        if int(attrs.get(window, -1)) != -1:
            raise CompileError(f"Attention with {window} (opset 25) is not supported")
    dtype = str(given["q"].ty.dtype)
    if dtype != "float32":
        raise CompileError(f"Attention in {dtype} is not supported; export emits float32")


def _static(value: relax.Expr) -> list[int]:
    return [int(d) for d in value.ty.shape.values]


def _heads(bb: relax.BlockBuilder, x: relax.Expr, attrs: dict[str, Any], name: str) -> relax.Expr:
    if len(x.ty.shape.values) == 4:
        return x
    batch, rows, columns = _static(x)
    heads = int(attrs["q_num_heads" if name == "q" else "kv_num_heads"])
    split = bb.normalize(op.reshape(x, (batch, rows, heads, columns // heads)))
    return bb.normalize(op.permute_dims(split, [0, 2, 1, 3]))


def _scaled(bb: relax.BlockBuilder, x: relax.Expr, factor: float) -> relax.Expr:
    return bb.normalize(op.multiply(x, relax.const(factor, str(x.ty.dtype))))


def _products(
    bb: relax.BlockBuilder, q: relax.Expr, k: relax.Expr, sizes: _Sizes, scale: float
) -> relax.Expr:
    """q · kᵀ with the heads of a group stacked as rows of their key head, so that keys are not repeated."""
    group, dim = sizes.heads // sizes.kv_heads, _static(q)[3]
    stacked = bb.normalize(
        op.reshape(_scaled(bb, q, scale), (sizes.batch, sizes.kv_heads, group * sizes.rows, dim))
    )
    transposed = bb.normalize(op.permute_dims(_scaled(bb, k, scale), [0, 1, 3, 2]))
    products = bb.normalize(op.matmul(stacked, transposed))
    return bb.normalize(op.reshape(products, (sizes.batch, sizes.heads, sizes.rows, sizes.keys)))


def _softcap(bb: relax.BlockBuilder, x: relax.Expr, cap: float) -> relax.Expr:
    return _scaled(bb, bb.normalize(op.tanh(_scaled(bb, x, 1.0 / cap))), cap) if cap > 0 else x


def _masked(
    bb: relax.BlockBuilder, scores: relax.Expr, given: dict[str, Any], sizes: _Sizes, causal: bool, past: int
) -> relax.Expr:
    mask, nonpad = given["mask"], given["nonpad"]
    extra = [value for value in (mask, nonpad) if value is not None]
    if not causal and not extra:
        return scores

    def compute(x: te.Tensor, *rest: te.Tensor) -> te.Tensor:
        lengths = rest[-1] if nonpad is not None else None
        bias = rest[0] if mask is not None else None
        lowest = tirx.const(float("-inf"), x.dtype)

        def element(b: Any, h: Any, i: Any, j: Any) -> Any:
            allowed, value = [tirx.const(True, "bool")], x[b, h, i, j]
            if causal:
                offset = past if lengths is None else lengths[b] - sizes.rows
                allowed.append(j <= i + offset)
            if lengths is not None:
                allowed.append(j < lengths[b])
            if bias is not None:
                place = _broadcast(bias, (b, h, i, j))
                inside = place[-1] < int(bias.shape[-1])
                # A mask shorter than the keys hides the rest.
                place[-1] = tirx.min(place[-1], int(bias.shape[-1]) - 1)
                allowed += [inside] + ([bias(*place)] if str(bias.dtype) == "bool" else [])
                value = value if str(bias.dtype) == "bool" else value + bias(*place)
            return tirx.if_then_else(tirx.all(*allowed), value, lowest)

        return te.compute(x.shape, element, name="masked")

    return bb.emit_te(compute, scores, *extra, primfunc_name_hint="attention_mask")


def _broadcast(tensor: te.Tensor, index: tuple[Any, ...]) -> list[Any]:
    """Return the index of a right-aligned, broadcast tensor."""
    own = list(index[len(index) - len(tensor.shape) :])
    one = [int(size) == 1 for size in tensor.shape[:-1]] + [False]
    return [0 * i if single else i for i, single in zip(own, one, strict=True)]


def _softmax(bb: relax.BlockBuilder, scores: relax.Expr) -> relax.Expr:
    """Softmax over keys; a row with no key to attend to gives zeros, not NaN."""
    largest = bb.normalize(op.max(scores, axis=[-1], keepdims=True))
    finite = bb.normalize(op.maximum(largest, relax.const(-3.0e38, "float32")))
    powers = bb.normalize(op.exp(bb.normalize(op.subtract(scores, finite))))
    total = bb.normalize(op.sum(powers, axis=[-1], keepdims=True))
    zero, one = relax.const(0.0, "float32"), relax.const(1.0, "float32")
    total = bb.normalize(op.where(bb.normalize(op.equal(total, zero)), one, total))
    return op.divide(powers, total)


def _weighted(bb: relax.BlockBuilder, weights: relax.Expr, v: relax.Expr, sizes: _Sizes) -> relax.Expr:
    group = sizes.heads // sizes.kv_heads
    stacked = bb.normalize(op.reshape(weights, (sizes.batch, sizes.kv_heads, group * sizes.rows, sizes.keys)))
    y = bb.normalize(op.matmul(stacked, v))
    return bb.normalize(op.reshape(y, (sizes.batch, sizes.heads, sizes.rows, sizes.value_dim)))
