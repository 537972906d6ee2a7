"""What a quantization scheme is: numpy arithmetic here, its meaning as an ONNX function of standard
operators.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from onnx import FunctionProto

from forerun.errors import ExportError
from forerun.export.signature import GROUP

FLOAT16_MAX = 65504.0


@dataclass(frozen=True)
class Part:
    """One stored tensor of a quantized weight.

    `suffix` follows the weight's name ("" for a weight stored whole); `data_type` is the ONNX type. 4-bit
    values are kept one per byte here and packed when written.
    """

    suffix: str
    data_type: int


class Scheme(Protocol):
    """How a weight [N, K] is stored.

    `exact_types` are the GGUF block types it holds without any change, `rounded_types` those whose integers it holds,
    with scales rounded to float16 (see `blocks.py`).
    """

    name: str
    bits: float
    parts: tuple[Part, ...]
    exact_types: tuple[str, ...]
    rounded_types: tuple[str, ...]
    function_name: str | None

    def quantize(self, weight: np.ndarray) -> dict[str, np.ndarray]:
        """float32 [N, K] → array per part suffix."""
        ...

    def take_blocks(self, type_name: str, blocks: np.ndarray) -> dict[str, np.ndarray]:
        """GGUF blocks uint8 [N, bytes per row] of one of `exact_types` or `rounded_types` → array per part suffix."""
        ...

    def dequantize(self, parts: Mapping[str, np.ndarray]) -> np.ndarray:
        """Array per part suffix → float32 [N, K]."""
        ...

    def function(self) -> FunctionProto | None:
        """The ONNX function that says what the parts mean, None for a weight stored whole."""
        ...


def split_groups(weight: np.ndarray, size: int = GROUP) -> np.ndarray:
    """float32 [N, K] → [N, K/size, size]; raises `ExportError` for numbers that are not finite."""
    if not np.isfinite(weight).all():
        raise ExportError("it holds values that are not finite; the model file is damaged")
    return weight.reshape(weight.shape[0], -1, size)


def to_float16(values: np.ndarray) -> np.ndarray:
    """Round to float16; raises `ExportError` where a value would overflow."""
    if np.abs(values).max(initial=0.0) > FLOAT16_MAX:
        raise ExportError("it is too large for float16 scales; export with --quant f32")
    return values.astype(np.float16)


def safe_reciprocal(scale: np.ndarray) -> np.ndarray:
    """1 / scale in float32, 0 where the scale is 0."""
    scale = scale.astype(np.float32)
    reciprocal: np.ndarray = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale != 0)
    return reciprocal


def expand_groups(per_group: np.ndarray, size: int = GROUP) -> np.ndarray:
    """float16 [N, K/size] → float32 [N, K]."""
    expanded: np.ndarray = np.repeat(per_group.astype(np.float32), size, axis=1)
    return expanded
