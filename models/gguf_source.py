"""Models in a GGUF file (format: ggml's docs/gguf.md): weights with their blocks, tokenizer, chat
template.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

from forerun.errors import ModelFileError, UnsupportedModelError
from forerun.models.checkpoint import Checkpoint, StoredTensor, require_tensors
from forerun.models.config import ModelConfig
from forerun.models.families import Family, family_of_gguf
from forerun.models.gguf_tokenizer import read_gguf_tokenizer

_PLAIN_TYPES = ("F64", "F32", "F16", "BF16")
_MAGIC = b"GGUF"
# What the reader raises when the bytes end early or do not mean what they should.
_READER_ERRORS = (ValueError, IndexError, KeyError, OverflowError, TypeError, MemoryError)


@dataclass(frozen=True)
class GgufFile:
    """A parsed GGUF file: metadata values by key, and per tensor its type, shape [N, K] and mapped data."""

    path: Path
    values: Mapping[str, Any]
    tensors: Mapping[str, "GgufTensor"]


@dataclass(frozen=True)
class GgufTensor:
    """`data` maps the file: plain numbers of `shape`, or uint8 blocks [..., bytes per row]."""

    type: GGMLQuantizationType
    shape: tuple[int, ...]
    data: np.ndarray


def open_gguf(path: Path) -> Checkpoint:
    """Open a GGUF file; weights are read only when asked for.

    Raises `ModelFileError` for a missing, truncated or malformed file and `UnsupportedModelError` for another
    architecture, naming the supported ones.
    """
    file = parse_gguf(path)
    architecture = file.values.get("general.architecture")
    family = family_of_gguf(architecture, path)
    if int(file.values.get("split.count", 1)) > 1:
        raise UnsupportedModelError(
            f"{path} is one part of a split model; join it with llama-gguf-split --merge"
        )
    shapes = {name: tensor.shape for name, tensor in file.tensors.items()}
    try:
        config = family.config_from_gguf(file.values, shapes, _rope_divisors(file))
    except KeyError as error:
        raise ModelFileError(f"{path} lacks {error}; the file is incomplete") from error
    except (TypeError, ValueError) as error:
        raise ModelFileError(f"{path} has a metadata value of the wrong kind: {error}") from error
    expected = family.tensor_shapes(config)
    names = {name: family.gguf_name(name) for name in expected}
    tensors = {
        name: _stored_tensor(file, names[name], _row_order(family, str(architecture), name, config))
        for name in expected
        if names[name] in file.tensors
    }
    require_tensors(path, tensors, expected, names)
    return Checkpoint(
        name=str(file.values.get("general.name") or path.stem),
        family=family.name,
        kind="gguf",
        source=path,
        config=config,
        tensors=tensors,
        read_tokenizer=partial(read_gguf_tokenizer, file.values, path),
    )


def parse_gguf(path: Path) -> GgufFile:
    """Parse metadata and tensor table; raises `ModelFileError` for anything that is not a whole GGUF file."""
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}") from error
    if magic != _MAGIC:
        raise ModelFileError(f"{path} is not a GGUF file (it starts with {magic!r}, not {_MAGIC!r})")
    try:
        reader = GGUFReader(path)
        values = {name: field.contents() for name, field in reader.fields.items()}
        tensors = {
            tensor.name: GgufTensor(
                GGMLQuantizationType(tensor.tensor_type),
                tuple(int(n) for n in reversed(tensor.shape)),
                tensor.data,
            )
            for tensor in reader.tensors
        }
    except _READER_ERRORS as error:
        raise ModelFileError(f"{path} is truncated or malformed: {error}") from error
    return GgufFile(path, values, tensors)


def _rope_divisors(file: GgufFile) -> tuple[float, ...] | None:
    """llama.cpp's converter writes Llama 3's stretched rope as one divisor per frequency."""
    tensor = file.tensors.get("rope_freqs.weight")
    if tensor is None:
        return None
    return tuple(float(divisor) for divisor in np.asarray(tensor.data, np.float32).reshape(-1))


def _row_order(family: Family, architecture: str, name: str, config: ModelConfig) -> np.ndarray | None:
    """The order that turns interleaved rotary rows back into half-split ones, None where they are in
    order.
    """
    heads = family.gguf_interleaved_heads(architecture, name, config)
    if heads is None:
        return None
    rows = np.arange(heads * config.head_dim).reshape(heads, config.head_dim // 2, 2)
    order: np.ndarray = rows.swapaxes(1, 2).reshape(-1)
    return order


def _stored_tensor(file: GgufFile, name: str, rows: np.ndarray | None) -> StoredTensor:
    tensor = file.tensors[name]
    block, block_bytes = GGML_QUANT_SIZES[tensor.type]
    plain = tensor.type.name in _PLAIN_TYPES
    read_blocks: Callable[[], np.ndarray] | None = None if plain else partial(_ordered, tensor.data, rows)
    bits = block_bytes * 8 / block
    return StoredTensor(
        tensor.type.name,
        tensor.shape,
        bits,
        partial(_read_float32, file.path, name, tensor, rows),
        read_blocks,
    )


def _ordered(data: np.ndarray, rows: np.ndarray | None) -> np.ndarray:
    """A copy in memory, so that nothing downstream depends on the mapped file."""
    copied: np.ndarray = np.array(data) if rows is None else np.asarray(data)[rows]
    return copied


def _read_float32(path: Path, name: str, tensor: GgufTensor, rows: np.ndarray | None) -> np.ndarray:
    data = _ordered(tensor.data, rows)
    try:
        values: np.ndarray = dequantize(data, tensor.type)
    except NotImplementedError as error:
        raise UnsupportedModelError(
            f"{path}: tensor {name} has type {tensor.type.name}, which is not read"
        ) from error
    return values.astype(np.float32, copy=False).reshape(tensor.shape)
