"""Weights as they are."""

from collections.abc import Mapping

import numpy as np
from onnx import TensorProto

from forerun.export.schemes.base import Part


class Float32:
    """float32, also for F16 and BF16 sources."""

    name = "float32"
    bits = 32.0
    parts: tuple[Part, ...] = (Part("", TensorProto.FLOAT),)
    exact_types: tuple[str, ...] = ("F32", "F16", "BF16")
    rounded_types: tuple[str, ...] = ()
    function_name: str | None = None

    def quantize(self, weight: np.ndarray) -> dict[str, np.ndarray]:
        """float32 of any shape → itself."""
        return {"": weight}

    def take_blocks(self, type_name: str, blocks: np.ndarray) -> dict[str, np.ndarray]:
        """Plain numbers have no blocks; nothing calls this."""
        raise AssertionError(f"{type_name} has no blocks that float32 could take over")

    def dequantize(self, parts: Mapping[str, np.ndarray]) -> np.ndarray:
        """The weight itself."""
        return parts[""]

    def function(self) -> None:
        """A weight stored whole needs no function."""
        return
