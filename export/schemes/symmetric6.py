"""Symmetric 6 bits: weight = scale · q, q in -32 … 31, groups of 16 along K.

Q6_K stores a scale as 8 bits for each 16 weights and a float16 for 256: half a bit a weight less to read than a float16
for each 16. That one needs no second scale to be found, widened and multiplied for every group, nor rows of 256.
"""

from collections.abc import Mapping

import numpy as np
from onnx import FunctionProto, TensorProto

from forerun.export.schemes.base import Part
from forerun.export.schemes.blocks import unpack_q6_k
from forerun.export.schemes.symmetric import (
    dequantize_symmetric,
    dequantize_symmetric_function,
    quantize_symmetric,
)

_FUNCTION = "DequantizeSymmetric6"
_GROUP = 16


class Symmetric6:
    """q int8 [N, K] of 6 bits, scale float16 [N, K/16]; holds Q6_K blocks with rounded scales."""

    name = "symmetric6"
    bits = 7.0
    parts: tuple[Part, ...] = (Part("q", TensorProto.INT8), Part("scale", TensorProto.FLOAT16))
    exact_types: tuple[str, ...] = ()
    rounded_types: tuple[str, ...] = ("Q6_K",)
    function_name: str | None = _FUNCTION

    def quantize(self, weight: np.ndarray) -> dict[str, np.ndarray]:
        """The largest magnitude at 31 … 16 or, with its sign, at -32, whichever gives the least squared error."""
        return quantize_symmetric(weight, (*range(31, 15, -1), -32), (-32, 31), _GROUP)

    def take_blocks(self, type_name: str, blocks: np.ndarray) -> dict[str, np.ndarray]:
        """Q6_K with its offset of 32 taken off."""
        six = unpack_q6_k(blocks)
        return {"q": six.integers.astype(np.int8) - np.int8(32), "scale": six.scale}

    def dequantize(self, parts: Mapping[str, np.ndarray]) -> np.ndarray:
        """→ float32 [N, K]."""
        return dequantize_symmetric(parts, _GROUP)

    def function(self) -> FunctionProto:
        """DequantizeSymmetric6(q, scale) → weight."""
        return dequantize_symmetric_function(_FUNCTION, _GROUP)
