"""The quantization schemes that kernels understand, by the name of the ONNX function that defines each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from forerun.compiler.vector_math import GROUP


@dataclass(frozen=True)
class Scheme:
    """Weights w = scale · (u - offset) [+ minimum], u unsigned, one scale [and minimum] per `group` inputs.

    `bits` is 0 for plain float32. `group` is 32, or 16 without a minimum.
    """

    name: str
    bits: int
    offset: int = 0
    affine: bool = False
    group: int = GROUP

    @property
    def wide(self) -> bool:
        """Whether both bytes of the activations are multiplied: for 8-bit weights the second byte costs least (their
        own bytes take twice as long to read) and counts most (their own error is small). CONTRIBUTING.md has what it
        would be for 5 and 6 bits."""
        return self.bits == 8

    @property
    def quantized(self) -> bool:
        """Whether the weights are integers with scales."""
        return self.bits > 0

    @property
    def scales(self) -> int:
        """How many scales a block's column has."""
        return GROUP // self.group


FLOAT32 = Scheme("float32", 0)
SYMMETRIC8 = Scheme("symmetric8", 8, offset=128)
SYMMETRIC6 = Scheme("symmetric6", 6, offset=32, group=16)
SYMMETRIC5 = Scheme("symmetric5", 5, offset=16)
AFFINE5 = Scheme("affine5", 5, affine=True)
SYMMETRIC4 = Scheme("symmetric4", 4, offset=8)
AFFINE4 = Scheme("affine4", 4, affine=True)

# (ONNX function, dtype of its first input) → scheme
SCHEMES: Mapping[tuple[str, str], Scheme] = MappingProxyType(
    {
        ("DequantizeSymmetric", "int8"): SYMMETRIC8,
        ("DequantizeSymmetric6", "int8"): SYMMETRIC6,
        ("DequantizeSymmetric5", "int8"): SYMMETRIC5,
        ("DequantizeAffine5", "uint8"): AFFINE5,
        ("DequantizeSymmetric", "int4"): SYMMETRIC4,
        ("DequantizeAffine", "uint4"): AFFINE4,
    }
)
