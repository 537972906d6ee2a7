"""Symmetric 5 bits: weight = scale · q, q in -16 … 15, groups of 32 along K."""

from collections.abc import Mapping

import numpy as np
from onnx import FunctionProto, TensorProto

from forerun.export.schemes.base import Part
from forerun.export.schemes.blocks import unpack_q5_0
from forerun.export.schemes.symmetric import (
    dequantize_symmetric,
    dequantize_symmetric_function,
    quantize_symmetric,
)

_FUNCTION = "DequantizeSymmetric5"


class Symmetric5:
    """q int8 [N, K] of 5 bits, scale float16 [N, K/32]; holds Q5_0 blocks exactly."""

    name = "symmetric5"
    bits = 5.5
    parts: tuple[Part, ...] = (Part("q", TensorProto.INT8), Part("scale", TensorProto.FLOAT16))
    exact_types: tuple[str, ...] = ("Q5_0",)
    rounded_types: tuple[str, ...] = ()
    function_name: str | None = _FUNCTION

    def quantize(self, weight: np.ndarray) -> dict[str, np.ndarray]:
        """The largest magnitude at 15 … 8 or, with its sign, at -16, whichever gives the least squared error."""
        return quantize_symmetric(weight, (*range(15, 7, -1), -16), (-16, 15))

    def take_blocks(self, type_name: str, blocks: np.ndarray) -> dict[str, np.ndarray]:
        """Q5_0 with its offset of 16 taken off."""
        five = unpack_q5_0(blocks)
        return {"q": five.integers.astype(np.int8) - np.int8(16), "scale": five.scale}

    def dequantize(self, parts: Mapping[str, np.ndarray]) -> np.ndarray:
        """→ float32 [N, K]."""
        return dequantize_symmetric(parts)

    def function(self) -> FunctionProto:
        """DequantizeSymmetric5(q, scale) → weight."""
        return dequantize_symmetric_function(_FUNCTION)
