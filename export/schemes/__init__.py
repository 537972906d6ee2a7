"""Quantization schemes: one file each. A new one is a new file and one word in the tuple below."""

from forerun.export.schemes.affine4 import Affine4
from forerun.export.schemes.affine5 import Affine5
from forerun.export.schemes.base import Part, Scheme
from forerun.export.schemes.float32 import Float32
from forerun.export.schemes.symmetric4 import Symmetric4
from forerun.export.schemes.symmetric5 import Symmetric5
from forerun.export.schemes.symmetric6 import Symmetric6
from forerun.export.schemes.symmetric8 import Symmetric8
from forerun.registry import Registry

_SCHEMES: tuple[type[Scheme], ...] = (
    Float32,
    Symmetric8,
    Symmetric6,
    Symmetric5,
    Affine5,
    Symmetric4,
    Affine4,
)
SCHEMES: Registry[Scheme] = Registry("quantization scheme", _SCHEMES)

__all__ = ["SCHEMES", "Part", "Scheme"]
