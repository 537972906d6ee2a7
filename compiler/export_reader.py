"""Reading an export directory: its settings, its functions, the calls of them, and weights one at a time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from forerun.compiler.graph import Dimension
from forerun.errors import CompileError

EXPORT_VERSION = 1
_SETTINGS = ("name", "family", "quant", "config", "tokenizer", "source")
_SIZES = ("layers", "hidden_size", "heads", "kv_heads", "head_dim", "vocabulary_size", "context_length")


@dataclass(frozen=True)
class ModuleCall:
    """One call of a module-local function: actual names for the function's inputs, and its layer number."""

    function: str
    layer: int
    inputs: dict[str, str]


@dataclass
class Export:
    """An export directory, opened."""

    directory: Path
    settings: dict[str, Any]
    functions: dict[str, onnx.FunctionProto]
    calls: list[ModuleCall]
    _initializers: dict[str, onnx.TensorProto]
    _inputs: dict[str, onnx.ValueInfoProto]

    def typed(self, name: str) -> tuple[int, Sequence[Dimension]]:
        """Return element type and shape of a graph input or initializer."""
        if name in self._initializers:
            tensor = self._initializers[name]
            return tensor.data_type, list(tensor.dims)
        tensor_type = self._inputs[name].type.tensor_type
        return tensor_type.elem_type, [d.dim_param or d.dim_value for d in tensor_type.shape.dim]

    @property
    def feature_size(self) -> int:
        """Return how many numbers come with each token, 0 for none."""
        return int(self.typed("features")[1][1]) if "features" in self._inputs else 0

    def is_weight(self, name: str) -> bool:
        """Return whether a name is an initializer."""
        return name in self._initializers

    def load(self, name: str) -> np.ndarray:
        """Return an initializer's data, 4-bit integers widened to one a byte."""
        try:
            array = numpy_helper.to_array(self._initializers[name], base_dir=str(self.directory))
        except Exception as error:  # onnx raises several kinds for a missing or truncated data file
            raise CompileError(
                f"{self.directory}: the data of {name} cannot be read: {error}; run `forerun export` again"
            ) from error
        if array.dtype.name in ("int4", "uint4"):
            array = array.astype("uint8" if array.dtype.name == "uint4" else "int8")
        return np.asarray(array)


def open_export(directory: Path) -> Export:
    """Open what `forerun export` wrote.

    Raises:
        CompileError: the directory is missing, incomplete, malformed or of another version.
    """
    settings_path, model_path = directory / "export.json", directory / "model.onnx"
    for path in (settings_path, model_path):
        if not path.is_file():
            is_foreign = model_path.is_file() and not settings_path.is_file()
            hint = (
                ", or bundle the ONNX file that is there as it is with --target onnxruntime"
                if is_foreign
                else ""
            )
            raise CompileError(
                f"{directory} is no export: {path.name} is missing; make one with `forerun export`{hint}"
            )
    try:
        settings = json.loads(settings_path.read_text(encoding="utf-8"))
        model = onnx.load(model_path, load_external_data=False)
    except Exception as error:
        raise CompileError(f"{directory} is damaged: {error}; run `forerun export` again") from error
    if settings.get("format") != "forerun-export" or settings.get("version") != EXPORT_VERSION:
        raise CompileError(
            f"{settings_path} is version {settings.get('version')!r} of {settings.get('format')!r}; this "
            f"compiler reads version {EXPORT_VERSION} of 'forerun-export': run `forerun export` again"
        )
    missing = [key for key in _SETTINGS if key not in settings]
    missing += [key for key in _SIZES if not isinstance(settings.get("config", {}).get(key), int)]
    if missing:
        raise CompileError(f"{settings_path} lacks {', '.join(missing)}; run `forerun export` again")
    functions = {function.name: function for function in model.functions}
    inputs = {value.name: value for value in model.graph.input}
    return Export(
        directory,
        settings,
        functions,
        _calls(model, functions),
        {tensor.name: tensor for tensor in model.graph.initializer},
        inputs,
    )


def _calls(model: onnx.ModelProto, functions: dict[str, onnx.FunctionProto]) -> list[ModuleCall]:
    """Return the module calls in order. A layer's number counts the calls of its kind, with or without a window."""
    seen = {"Attention": 0, "FeedForward": 0}
    calls = []
    for node in model.graph.node:
        if node.domain != "forerun":
            if node.op_type != "Identity":
                raise CompileError(
                    f"the exported graph has a stray {node.op_type}; only module calls are expected"
                )
            continue
        kind = next((kind for kind in seen if node.op_type.startswith(kind)), "")
        layer = seen.get(kind, 0)
        if kind in seen:
            seen[kind] += 1
        names = dict(zip(functions[node.op_type].input, node.input, strict=True))
        calls.append(ModuleCall(node.op_type, layer, names))
    return calls
