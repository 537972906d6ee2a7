"""The arithmetic that both symmetric schemes share: weight = scale · q, one float16 scale per 32 weights."""

from collections.abc import Mapping

import numpy as np
from onnx import FunctionProto, TensorProto, helper

from forerun.export.schemes.base import expand_groups
from forerun.export.signature import DOMAIN, GROUP, OPSET

FUNCTION_NAME = "DequantizeSymmetric"


def dequantize_symmetric(parts: Mapping[str, np.ndarray]) -> np.ndarray:
    """q int8 [N, K], scale float16 [N, K/32] → float32 [N, K]."""
    weight: np.ndarray = parts["q"].astype(np.float32) * expand_groups(parts["scale"])
    return weight


def dequantize_symmetric_function() -> FunctionProto:
    """DequantizeSymmetric(q, scale) → weight, for q of int8 or int4."""
    nodes = [
        helper.make_node("Cast", ["scale"], ["scale_float"], to=TensorProto.FLOAT),
        helper.make_node("DequantizeLinear", ["q", "scale_float"], ["weight"], axis=1, block_size=GROUP),
    ]
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_function(DOMAIN, FUNCTION_NAME, ["q", "scale"], ["weight"], nodes, opsets)
