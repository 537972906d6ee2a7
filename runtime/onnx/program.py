"""A bundle of the target onnxruntime, every byte of it verified."""

import ctypes
import re
from pathlib import Path

import numpy as np

from forerun.errors import BundleError, TargetError
from forerun.machine import physical_cores
from forerun.runtime.bundle import MANIFEST_NAME, Bundle, read_manifest
from forerun.runtime.library import load_library
from forerun.runtime.onnx.engine import Engine, import_onnxruntime
from forerun.runtime.onnx.rule import RowRule, kept_rule, try_rows
from forerun.runtime.onnx.session import OnnxSession
from forerun.runtime.program import ModelConfig

TARGET = "onnxruntime"
MAX_ROWS = 128  # rows of one call: a prompt's pieces, whose logits the file gives for every row
_HASH_PIECE = 1 << 20


class OnnxProgram:
    """What `program.LoadedProgram` is to compiled bundles; any number of sessions may be opened of it."""

    def __init__(self, bundle: Bundle, target: str | None = None) -> None:
        """Check all files. Raises `BundleError` for a damaged bundle, `TargetError` for another target than
        onnxruntime, `OptionError` if the package is not installed.
        """
        if target not in (None, TARGET):
            raise TargetError(f"the bundle was not compiled for target {target}; it has {TARGET}")
        import_onnxruntime()
        self.path = bundle.path
        self._manifest_hash = check_manifest(bundle.path)
        entries = read_manifest(bundle.path)["files"]
        for name, entry in entries.items():
            check_file(bundle.path / name, int(entry["bytes"]), str(entry["xxh64"]))
        self._model = bundle.path / bundle.onnx_model
        if bundle.onnx_model not in entries:
            raise BundleError(
                f"{MANIFEST_NAME} lists no file {bundle.onnx_model!r}; compile the bundle again"
            )
        self.config = make_config(bundle)
        self._window: int | None = bundle.config.get("window")

    def open_session(self, sequences: int, capacity: int | None, threads: int | None) -> OnnxSession:
        """A session with the file opened for itself. The first on a machine tries how its rows depend on each other,
        which takes two dozen calls.
        """
        count = threads or physical_cores()
        engine = self.open_engine(count)
        rule = self.find_rule(engine, count)
        return OnnxSession(
            engine, self.config, rule, threads=count, sequences=sequences, capacity=capacity, bundle=self.path
        )

    def open_engine(self, threads: int) -> Engine:
        """The file in ONNX Runtime; raises as `Engine` does."""
        return Engine(self._model, threads, self._window)

    def find_rule(self, engine: Engine, threads: int) -> RowRule:
        """How rows depend on each other here, as was found before, or tried now."""
        return kept_rule(
            self._manifest_hash,
            threads,
            engine,
            lambda: try_rows(engine, self.config.vocabulary_size, self.config.context_length),
        )

    def close(self) -> None:
        """Nothing is held open."""


def make_config(bundle: Bundle) -> ModelConfig:
    """The sizes that the manifest names; raises `BundleError` if one is missing."""
    names = ("layers", "hidden_size", "vocabulary_size", "context_length", "heads", "kv_heads", "head_dim")
    missing = [name for name in names if not isinstance(bundle.config.get(name), int)]
    if missing:
        raise BundleError(f"{MANIFEST_NAME} lacks the numbers {', '.join(missing)}; compile the bundle again")
    sizes = {name: int(bundle.config[name]) for name in names}
    return ModelConfig(**sizes, max_rows=MAX_ROWS, max_gather=MAX_ROWS)


def check_manifest(folder: Path) -> str:
    """Check the manifest's own hash, which stands in its first line; returns it. Raises `BundleError`."""
    data = (folder / MANIFEST_NAME).read_bytes()
    first, _, vouched = data.partition(b"\n")
    found = re.search(rb'"xxh64": "([0-9a-f]{16})"', first)
    if found is None or hash_bytes(np.frombuffer(vouched, np.uint8)) != int(found[1], 16):
        raise BundleError(
            f"{MANIFEST_NAME} was changed or cut off after it was written; compile the bundle again"
        )
    return found[1].decode()


def check_file(path: Path, size: int, expected: str) -> None:
    """Check a file's size and hash as `native/src/hash.h` does; raises `BundleError` if it is not what it was."""
    try:
        found = path.stat().st_size
        data = np.memmap(path, np.uint8, "r") if found else np.empty(0, np.uint8)
    except OSError as error:
        raise BundleError(
            f"cannot read {path}: {error.strerror}; copy or compile the bundle again"
        ) from error
    if found != size:
        raise BundleError(
            f"{path.name} has {found} bytes, the manifest says {size}; copy or compile the bundle again"
        )
    pieces = [hash_bytes(data[start : start + _HASH_PIECE]) for start in range(0, max(size, 1), _HASH_PIECE)]
    whole = pieces[0] if len(pieces) == 1 else hash_bytes(np.array(pieces, "<u8").view(np.uint8))
    if f"{whole:016x}" != expected:
        raise BundleError(f"{path.name} was changed after it was written; copy or compile the bundle again")


def hash_bytes(data: np.ndarray) -> int:
    """XXH64 of a contiguous uint8 [n]."""
    pointer = ctypes.cast(ctypes.c_void_p(data.ctypes.data), ctypes.c_char_p)
    return int(load_library().forerun_hash64(pointer, data.size, 0))
