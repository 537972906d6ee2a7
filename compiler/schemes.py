"""The quantization schemes that kernels understand, by the name of the ONNX function that defines each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scheme:
    """Weights w = scale · (u - offset) [+ minimum], u unsigned, one scale and minimum per 32 inputs.

    `bits` is 0 for plain float32.
    """

    name: str
    bits: int
    offset: int = 0
    affine: bool = False

    @property
    def wide(self) -> bool:
        """Whether both bytes of the activations are multiplied: for 8-bit weights the second byte costs least (their
        own bytes take twice as long to read) and counts most (their own error is small)."""
        return self.bits == 8

    @property
    def quantized(self) -> bool:
        """Whether the weights are integers with scales."""
        return self.bits > 0


FLOAT32 = Scheme("float32", 0)
SYMMETRIC8 = Scheme("symmetric8", 8, offset=128)
SYMMETRIC4 = Scheme("symmetric4", 4, offset=8)
AFFINE4 = Scheme("affine4", 4, affine=True)

# (ONNX function, dtype of its first input) → scheme
SCHEMES: dict[tuple[str, str], Scheme] = {
    ("DequantizeSymmetric", "int8"): SYMMETRIC8,
    ("DequantizeSymmetric", "int4"): SYMMETRIC4,
    ("DequantizeAffine", "uint4"): AFFINE4,
}
