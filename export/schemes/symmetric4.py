"""Symmetric int4: weight = scale · q, q in -8 … 7, groups of 32 along K."""

from collections.abc import Mapping

import numpy as np
from onnx import FunctionProto, TensorProto

from forerun.export.schemes.base import Part, safe_reciprocal, split_groups, to_float16
from forerun.export.schemes.blocks import unpack_q4_0
from forerun.export.schemes.symmetric import (
    FUNCTION_NAME,
    dequantize_symmetric,
    dequantize_symmetric_function,
)


class Symmetric4:
    """q int4 [N, K], scale float16 [N, K/32]; holds Q4_0 blocks exactly."""

    name = "symmetric4"
    bits = 4.5
    parts: tuple[Part, ...] = (Part("q", TensorProto.INT4), Part("scale", TensorProto.FLOAT16))
    exact_types: tuple[str, ...] = ("Q4_0",)
    rounded_types: tuple[str, ...] = ()
    function_name: str | None = FUNCTION_NAME

    def quantize(self, weight: np.ndarray) -> dict[str, np.ndarray]:
        """The rule of Q4_0: the scale, with its sign, maps each group's largest magnitude to -8."""
        groups = split_groups(weight)
        largest = np.take_along_axis(groups, np.abs(groups).argmax(axis=-1)[..., None], axis=-1)[..., 0]
        scale = to_float16(largest / np.float32(-8))
        q = np.rint(groups * safe_reciprocal(scale)[..., None]).clip(-8, 7).astype(np.int8)
        return {"q": q.reshape(weight.shape), "scale": scale}

    def take_blocks(self, type_name: str, blocks: np.ndarray) -> dict[str, np.ndarray]:
        """Q4_0 with its offset of 8 taken off."""
        four = unpack_q4_0(blocks)
        return {"q": four.integers.astype(np.int8) - np.int8(8), "scale": four.scale}

    def dequantize(self, parts: Mapping[str, np.ndarray]) -> np.ndarray:
        """→ float32 [N, K]."""
        return dequantize_symmetric(parts)

    def function(self) -> FunctionProto:
        """DequantizeSymmetric."""
        return dequantize_symmetric_function()
