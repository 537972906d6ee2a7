"""The arithmetic that both affine schemes share: weight = scale · q + minimum, both float16, per 32 weights."""

from collections.abc import Mapping

import numpy as np
from onnx import FunctionProto, TensorProto, helper

from forerun.export.schemes.base import expand_groups, safe_reciprocal, split_groups, to_float16
from forerun.export.schemes.blocks import Blocks
from forerun.export.signature import DOMAIN, GROUP, OPSET

# Parts of the range cut off at the lower and upper end before the least-squares fit.
_SHRINKS = (
    (0.0, 0.0),
    (0.03, 0.03),
    (0.06, 0.06),
    (0.1, 0.1),
    (0.06, 0.0),
    (0.0, 0.06),
    (0.12, 0.0),
    (0.0, 0.12),
)


def quantize_affine(weight: np.ndarray, levels: int) -> dict[str, np.ndarray]:
    """float32 [N, K] → q in 0 … levels, with the scale and minimum that minimise each group's squared error.

    Tried per group: several shrunken ranges, each followed by a least-squares fit of scale and minimum to
    the integers it gives; both are rounded to float16 before their error counts. Plain min/max is one of
    the candidates, so the result is never worse than it.
    """
    groups = split_groups(weight).reshape(-1, GROUP)
    q, scale, minimum = _search(groups, np.float32(levels))
    per_group = (weight.shape[0], -1)
    return {
        "q": q.reshape(weight.shape),
        "scale": scale.reshape(per_group),
        "minimum": minimum.reshape(per_group),
    }


def affine_parts(blocks: Blocks) -> dict[str, np.ndarray]:
    """Blocks of an affine type as they are."""
    assert blocks.minimum is not None
    return {"q": blocks.integers, "scale": blocks.scale, "minimum": blocks.minimum}


def dequantize_affine(parts: Mapping[str, np.ndarray]) -> np.ndarray:
    """q uint8 [N, K], scale and minimum float16 [N, K/32] → float32 [N, K]."""
    weight: np.ndarray = parts["q"].astype(np.float32) * expand_groups(parts["scale"])
    weight += expand_groups(parts["minimum"])
    return weight


def dequantize_affine_function(name: str) -> FunctionProto:
    """name(q, scale, minimum) → weight, for q of uint4 or uint8."""
    nodes = [
        helper.make_node("Constant", [], ["group_shape"], value_ints=[0, -1, GROUP]),
        helper.make_node("Constant", [], ["row_shape"], value_ints=[0, -1]),
        helper.make_node("Constant", [], ["last_axis"], value_ints=[-1]),
        helper.make_node("Cast", ["scale"], ["scale_float"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["minimum"], ["minimum_float"], to=TensorProto.FLOAT),
        helper.make_node("DequantizeLinear", ["q", "scale_float"], ["scaled"], axis=1, block_size=GROUP),
        helper.make_node("Reshape", ["scaled", "group_shape"], ["scaled_groups"]),
        helper.make_node("Unsqueeze", ["minimum_float", "last_axis"], ["minimum_groups"]),
        helper.make_node("Add", ["scaled_groups", "minimum_groups"], ["groups"]),
        helper.make_node("Reshape", ["groups", "row_shape"], ["weight"]),
    ]
    inputs, opsets = ["q", "scale", "minimum"], [helper.make_opsetid("", OPSET)]
    return helper.make_function(DOMAIN, name, inputs, ["weight"], nodes, opsets)


def _search(groups: np.ndarray, levels: np.float32) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """float32 [G, 32] → the best q uint8 [G, 32], scale and minimum float16 [G] among all candidates."""
    low, high, mean = groups.min(axis=1), groups.max(axis=1), groups.mean(axis=1)
    spread = high - low
    best_error = np.full(len(groups), np.inf, np.float32)
    best_scale = np.zeros(len(groups), np.float16)
    best_minimum = to_float16(low)

    def consider(scale: np.ndarray, minimum: np.ndarray) -> np.ndarray:
        """Keep a candidate where it is better than the best so far; returns its integers."""
        half_scale, half_minimum = to_float16(scale), to_float16(minimum)
        q, error = _round(groups, levels, half_scale, half_minimum)
        better = error < best_error
        best_error[better] = error[better]
        best_scale[better], best_minimum[better] = half_scale[better], half_minimum[better]
        return q

    for cut_low, cut_high in _SHRINKS:
        scale = spread * np.float32(1 - cut_low - cut_high) / levels
        q = consider(scale, low + spread * np.float32(cut_low))
        q = consider(*_least_squares(groups, mean, q))
        consider(*_least_squares(groups, mean, q))
    best_q, _ = _round(groups, levels, best_scale, best_minimum)
    return best_q.astype(np.uint8), best_scale, best_minimum


def _round(
    groups: np.ndarray, levels: np.float32, scale: np.ndarray, minimum: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Nearest integers under a float16 scale and minimum [G], and each group's squared error [G]."""
    scale32, minimum32 = scale.astype(np.float32)[:, None], minimum.astype(np.float32)[:, None]
    q = (groups - minimum32) * safe_reciprocal(scale32)
    np.rint(q, out=q)
    np.clip(q, 0, levels, out=q)
    difference = q * scale32
    difference += minimum32
    difference -= groups
    return q, np.einsum("gi,gi->g", difference, difference)


def _least_squares(groups: np.ndarray, mean: np.ndarray, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The scale and minimum [G] that fit integers q best; the groups' mean where all integers are equal."""
    mean_q = q.mean(axis=1)
    centred = q - mean_q[:, None]
    variance = np.einsum("gi,gi->g", centred, centred)
    covariance = np.einsum("gi,gi->g", centred, groups)
    scale = np.divide(covariance, variance, out=np.zeros_like(covariance), where=variance > 0)
    return scale, mean - scale * mean_q
