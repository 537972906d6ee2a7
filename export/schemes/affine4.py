"""Affine int4: weight = scale · q + minimum, q in 0 … 15, groups of 32 along K."""

from collections.abc import Mapping

import numpy as np
from onnx import FunctionProto, TensorProto

from forerun.export.schemes.affine import (
    affine_parts,
    dequantize_affine,
    dequantize_affine_function,
    quantize_affine,
)
from forerun.export.schemes.base import Part
from forerun.export.schemes.blocks import unpack_q4_1, unpack_q4_k

_FUNCTION = "DequantizeAffine"


class Affine4:
    """q uint4 [N, K], scale and minimum float16 [N, K/32]; holds Q4_1 blocks exactly, Q4_K with rounded scales."""

    name = "affine4"
    bits = 5.0
    parts: tuple[Part, ...] = (
        Part("q", TensorProto.UINT4),
        Part("scale", TensorProto.FLOAT16),
        Part("minimum", TensorProto.FLOAT16),
    )
    exact_types: tuple[str, ...] = ("Q4_1",)
    rounded_types: tuple[str, ...] = ("Q4_K",)
    function_name: str | None = _FUNCTION

    def quantize(self, weight: np.ndarray) -> dict[str, np.ndarray]:
        """The best found by a search; see `quantize_affine`."""
        return quantize_affine(weight, 15)

    def take_blocks(self, type_name: str, blocks: np.ndarray) -> dict[str, np.ndarray]:
        """The blocks' own integers."""
        return affine_parts((unpack_q4_k if type_name == "Q4_K" else unpack_q4_1)(blocks))

    def dequantize(self, parts: Mapping[str, np.ndarray]) -> np.ndarray:
        """→ float32 [N, K]."""
        return dequantize_affine(parts)

    def function(self) -> FunctionProto:
        """DequantizeAffine(q, scale, minimum) → weight."""
        return dequantize_affine_function(_FUNCTION)
