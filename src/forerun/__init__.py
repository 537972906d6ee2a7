"""Forerun: compile a language model for one device and run it with speculative decoding and early exit."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forerun.runtime.model import Model, load

__version__ = "0.1.0"
__all__ = ["Model", "__version__", "load"]

# Public name → module that defines it. Resolved on first use, so that `import forerun` stays light.
_LAZY_NAMES = {"Model": "forerun.runtime.model", "load": "forerun.runtime.model"}


def __getattr__(name: str) -> Any:
    """Import the module behind a public name when the name is first used."""
    if name not in _LAZY_NAMES:
        raise AttributeError(f"module 'forerun' has no attribute {name!r}")
    value = getattr(import_module(_LAZY_NAMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
