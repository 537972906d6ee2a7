"""The arithmetic that the symmetric schemes share: weight = scale · q, one float16 scale per 32 (or 16) weights."""

from collections.abc import Iterable, Mapping

import numpy as np
from onnx import FunctionProto, TensorProto, helper

from forerun.export.schemes.base import expand_groups, safe_reciprocal, split_groups, to_float16
from forerun.export.signature import DOMAIN, GROUP, OPSET

FUNCTION_NAME = "DequantizeSymmetric"


def quantize_symmetric(
    weight: np.ndarray, levels: Iterable[int], limits: tuple[int, int], size: int = GROUP
) -> dict[str, np.ndarray]:
    """float32 [N, K] → q int8 [N, K] within `limits` and scale float16 [N, K/size].

    Of the scales that map each group's largest magnitude to one of `levels` (a negative level: with its sign), the one
    with the least squared error; rounding is to nearest under the scale as stored. Weights that were quantized before
    lie on a grid that one of the scales often fits.
    """
    groups = split_groups(weight, size)
    largest = np.take_along_axis(groups, np.abs(groups).argmax(axis=-1)[..., None], axis=-1)[..., 0]
    q = np.zeros(groups.shape, np.int8)
    scale, error = np.zeros(largest.shape, np.float16), np.full(largest.shape, np.inf, np.float32)
    for level in levels:
        other_scale = to_float16((largest if level < 0 else np.abs(largest)) / np.float32(level))
        other, other_error = _rounded(groups, other_scale, limits)
        better = other_error < error
        q[better], scale[better], error[better] = other[better], other_scale[better], other_error[better]
    return {"q": q.reshape(weight.shape), "scale": scale}


def _rounded(groups: np.ndarray, scale: np.ndarray, limits: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """int8 [N, G, size] under scales float16 [N, G], and each group's squared error, float32 [N, G]."""
    q = np.rint(groups * safe_reciprocal(scale)[..., None]).clip(*limits)
    error = q * scale.astype(np.float32)[..., None] - groups
    return q.astype(np.int8), np.einsum("ngk,ngk->ng", error, error)


def dequantize_symmetric(parts: Mapping[str, np.ndarray], size: int = GROUP) -> np.ndarray:
    """q int8 [N, K], scale float16 [N, K/size] → float32 [N, K]."""
    weight: np.ndarray = parts["q"].astype(np.float32) * expand_groups(parts["scale"], size)
    return weight


def dequantize_symmetric_function(name: str = FUNCTION_NAME, size: int = GROUP) -> FunctionProto:
    """name(q, scale) → weight, for q of int8 or int4."""
    nodes = [
        helper.make_node("Cast", ["scale"], ["scale_float"], to=TensorProto.FLOAT),
        helper.make_node("DequantizeLinear", ["q", "scale_float"], ["weight"], axis=1, block_size=size),
    ]
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_function(DOMAIN, name, ["q", "scale"], ["weight"], nodes, opsets)
