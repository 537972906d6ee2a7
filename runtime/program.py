"""A bundle opened for one target, the sizes of its model, and the steps of its layers."""

import ctypes
from ctypes import byref
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

from forerun.errors import OptionError, RuntimeFailure
from forerun.runtime.bundle import read_bundle
from forerun.runtime.library import Handle, NativeModel, check, load_library


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of a compiled model. `max_rows` is how many rows one forward may list, `max_gather` how long a
    branch of a tree may be. `feature_size` numbers come with each token, none where it is 0.
    """

    layers: int
    hidden_size: int
    vocabulary_size: int
    context_length: int
    heads: int
    kv_heads: int
    head_dim: int
    max_rows: int
    max_gather: int
    feature_size: int = 0


@dataclass(frozen=True)
class Step:
    """One sublayer of one layer."""

    kind: Literal["attention", "feed_forward"]
    layer: int

    @property
    def sublayer(self) -> int:
        """Its number in the model's order: 2 · layer, plus 1 for the feed-forward."""
        return 2 * self.layer + (self.kind == "feed_forward")


def full_steps(layers: int) -> tuple[Step, ...]:
    """All sublayers of a model of that many layers, in order."""
    kinds: tuple[Literal["attention", "feed_forward"], ...] = ("attention", "feed_forward")
    return tuple(Step(kind, layer) for layer in range(layers) for kind in kinds)


class LoadedProgram:
    """A bundle opened for one target, every byte of it verified; any number of sessions may share it.

    `target` None takes the first of the bundle's targets that this machine runs. Raises `BundleError` for a
    bundle that is damaged, incomplete or of another version, `TargetError` for a target it lacks or this
    machine cannot run; the error's `status` says which of the core's reasons it was.
    """

    def __init__(self, path: Path, target: str | None = None) -> None:
        self._library = load_library()
        self.path = Path(path)
        pointer = ctypes.c_void_p()
        name = None if target is None else target.encode()
        check(self._library.forerun_bundle_open(bytes(self.path), name, byref(pointer)))
        assert pointer.value is not None
        self._handle: Handle | None = Handle(pointer.value, self._library.forerun_bundle_release)
        self.target: str = self._library.forerun_bundle_target(pointer).decode()
        self.device: str = self._library.forerun_bundle_device(pointer).decode()
        self.config = self._read_config()

    @property
    def handle(self) -> Handle:
        """The native bundle; raises `RuntimeFailure` after `close`."""
        if self._handle is None:
            raise RuntimeFailure(f"the program of {self.path} is closed")
        return self._handle

    def cache_bytes(self, capacity: int = 0) -> int:
        """Memory for the keys and values of one sequence of `capacity` positions, 0 for the context length."""
        found = ctypes.c_uint64()
        check(
            self._library.forerun_bundle_cache_bytes(self.handle.pointer, capacity, byref(found)), OptionError
        )
        return found.value

    def close(self) -> None:
        """Give up the bundle. Sessions over it keep it open until they are closed."""
        self._handle = None

    def __enter__(self) -> "LoadedProgram":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read_config(self) -> ModelConfig:
        model, kv_heads, head_dim = NativeModel(), ctypes.c_int32(), ctypes.c_int32()
        pointer = self.handle.pointer
        check(self._library.forerun_bundle_model(pointer, byref(model)))
        check(self._library.forerun_bundle_layer(pointer, 0, byref(kv_heads), byref(head_dim)))
        # The core has no use for the number of query heads: only the manifest knows it.
        heads = int(read_bundle(self.path).config.get("heads", kv_heads.value))
        return ModelConfig(
            layers=model.layers,
            hidden_size=model.hidden_size,
            vocabulary_size=model.vocabulary_size,
            context_length=model.context_length,
            heads=heads,
            kv_heads=kv_heads.value,
            head_dim=head_dim.value,
            max_rows=model.max_rows,
            max_gather=model.max_gather,
            feature_size=model.feature_size,
        )
