"""Affine int4: weight = scale · q + minimum, q in 0 … 15, groups of 32 along K."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from onnx import FunctionProto, TensorProto, helper

from forerun.export.schemes.base import Part, expand_groups, safe_reciprocal, split_groups, to_float16
from forerun.export.schemes.blocks import unpack_q4_1
from forerun.export.signature import DOMAIN, GROUP, OPSET

_LEVELS = np.float32(15)
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
_CHUNK_GROUPS = 4096


class Affine4:
    """q uint4 [N, K], scale and minimum float16 [N, K/32]; holds Q4_1 blocks exactly."""

    name = "affine4"
    bits = 5.0
    parts: tuple[Part, ...] = (
        Part("q", TensorProto.UINT4),
        Part("scale", TensorProto.FLOAT16),
        Part("minimum", TensorProto.FLOAT16),
    )
    exact_types: tuple[str, ...] = ("Q4_1",)
    function_name: str | None = "DequantizeAffine"

    def quantize(self, weight: np.ndarray) -> dict[str, np.ndarray]:
        """Scale and minimum that minimise each group's squared error.

        Tried per group: several shrunken ranges, each followed by a least-squares fit of scale and minimum to
        the integers it gives; both are rounded to float16 before their error counts. Plain min/max is one of
        the candidates, so the result is never worse than it.
        """
        groups = split_groups(weight).reshape(-1, GROUP)
        chunks = [groups[start : start + _CHUNK_GROUPS] for start in range(0, len(groups), _CHUNK_GROUPS)]
        with ThreadPoolExecutor() as pool:
            fitted = list(pool.map(_search, chunks))
        q, scale, minimum = (np.concatenate([part[index] for part in fitted]) for index in range(3))
        per_group = (weight.shape[0], -1)
        return {
            "q": q.reshape(weight.shape),
            "scale": scale.reshape(per_group),
            "minimum": minimum.reshape(per_group),
        }

    def take_blocks(self, type_name: str, blocks: np.ndarray) -> dict[str, np.ndarray]:
        """Q4_1 as it is."""
        four = unpack_q4_1(blocks)
        assert four.minimum is not None
        return {"q": four.integers, "scale": four.scale, "minimum": four.minimum}

    def dequantize(self, parts: Mapping[str, np.ndarray]) -> np.ndarray:
        """→ float32 [N, K]."""
        weight: np.ndarray = parts["q"].astype(np.float32) * expand_groups(parts["scale"])
        weight += expand_groups(parts["minimum"])
        return weight

    def function(self) -> FunctionProto:
        """DequantizeAffine(q, scale, minimum) → weight."""
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
        return helper.make_function(DOMAIN, self.function_name, inputs, ["weight"], nodes, opsets)


def _search(groups: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """float32 [G, 32] → the best q uint8 [G, 32], scale and minimum float16 [G] among all candidates."""
    low, high = groups.min(axis=1), groups.max(axis=1)
    spread = high - low
    best_error = np.full(len(groups), np.inf, np.float32)
    best_q = np.zeros(groups.shape, np.float32)
    best_scale = np.zeros(len(groups), np.float16)
    best_minimum = to_float16(low)

    def consider(scale: np.ndarray, minimum: np.ndarray) -> np.ndarray:
        """Keep a candidate where it is better than the best so far; returns its integers."""
        half_scale, half_minimum = to_float16(scale), to_float16(minimum)
        q, error = _round(groups, half_scale, half_minimum)
        better = error < best_error
        best_error[better], best_q[better] = error[better], q[better]
        best_scale[better], best_minimum[better] = half_scale[better], half_minimum[better]
        return q

    for cut_low, cut_high in _SHRINKS:
        scale = spread * np.float32(1 - cut_low - cut_high) / _LEVELS
        q = consider(scale, low + spread * np.float32(cut_low))
        q = consider(*_least_squares(groups, q))
        consider(*_least_squares(groups, q))
    return best_q.astype(np.uint8), best_scale, best_minimum


def _round(groups: np.ndarray, scale: np.ndarray, minimum: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nearest integers under a float16 scale and minimum [G], and each group's squared error [G]."""
    scale32, minimum32 = scale.astype(np.float32)[:, None], minimum.astype(np.float32)[:, None]
    q = (groups - minimum32) * safe_reciprocal(scale32)
    np.rint(q, out=q)
    np.clip(q, 0, _LEVELS, out=q)
    difference = q * scale32
    difference += minimum32
    difference -= groups
    return q, np.einsum("gi,gi->g", difference, difference)


def _least_squares(groups: np.ndarray, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The scale and minimum [G] that fit integers q best; min/max of the group where all integers are
    equal.
    """
    mean_q, mean_w = q.mean(axis=1), groups.mean(axis=1)
    centred = q - mean_q[:, None]
    variance = np.einsum("gi,gi->g", centred, centred)
    covariance = np.einsum("gi,gi->g", centred, groups)
    scale = np.divide(covariance, variance, out=np.zeros_like(covariance), where=variance > 0)
    return scale, mean_w - scale * mean_q
