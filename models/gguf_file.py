"""One GGUF file (format: ggml's docs/gguf.md): its metadata and the table of its tensors."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from gguf.constants import GGMLQuantizationType

from forerun.errors import ModelFileError
from forerun.models.gguf_reader import Reader

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
    """`read` reads its data: plain numbers of `shape`, or uint8 blocks [..., bytes per row]."""

    type: GGMLQuantizationType
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


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
        reader = Reader(path)
        values = {name: field.contents() for name, field in reader.fields.items()}
        tensors = {
            tensor.name: GgufTensor(
                GGMLQuantizationType(tensor.tensor_type),
                tuple(int(n) for n in reversed(tensor.shape)),
                partial(_read_data, path, tensor.data.dtype, tensor.data.shape, int(tensor.data_offset)),
            )
            for tensor in reader.tensors
        }
    except _READER_ERRORS as error:
        raise ModelFileError(f"{path} is truncated or malformed: {error}") from error
    return GgufFile(path, values, tensors)


def _read_data(path: Path, dtype: np.dtype, shape: tuple[int, ...], offset: int) -> np.ndarray:
    """Read, not mapped: pages of a mapped file would stay in memory until all of the model had been there."""
    try:
        data = np.fromfile(path, dtype, count=math.prod(shape), offset=offset)
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}") from error
    if data.size != math.prod(shape):
        raise ModelFileError(f"{path} was truncated after it had been opened")
    return data.reshape(shape)
