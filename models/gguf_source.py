"""Models in GGUF files, whole or split: weights with their blocks, tokenizer, chat
template.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize

from forerun.errors import ModelFileError, UnsupportedModelError
from forerun.models.checkpoint import (
    Checkpoint,
    RowRange,
    StoredTensor,
    fold_logit_scale,
    require_rows,
    require_tensors,
)
from forerun.models.config import ModelConfig
from forerun.models.families import Family, family_of_gguf
from forerun.models.gguf_file import GgufFile, GgufTensor
from forerun.models.gguf_parts import open_parts
from forerun.models.gguf_tokenizer import read_gguf_tokenizer

_PLAIN_TYPES = ("F64", "F32", "F16", "BF16")
_SLAB_ROWS = 256


def open_gguf(path: Path) -> Checkpoint:
    """Open a GGUF file, or a split model by any of its parts; weights are read only when asked for.

    Raises `ModelFileError` for a missing, truncated or malformed file and `UnsupportedModelError` for another
    architecture, naming the supported ones.
    """
    file = open_parts(path)
    architecture = file.values.get("general.architecture")
    family = family_of_gguf(architecture, path)
    shapes = {name: tensor.shape for name, tensor in file.tensors.items()}
    try:
        config = family.config_from_gguf(file.values, shapes, _rope_divisors(file))
    except KeyError as error:
        raise ModelFileError(f"{path} lacks {error}; the file is incomplete") from error
    except (TypeError, ValueError) as error:
        raise ModelFileError(f"{path} has a metadata value of the wrong kind: {error}") from error
    expected = family.tensor_shapes(config)
    names = {name: family.gguf_name(name) for name in expected}
    tensors = {}
    for name in expected:
        if names[name] not in file.tensors:
            continue
        part = family.rows_in_file(name, config)
        require_rows(path, names[name], shapes[names[name]], part)
        order = _row_order(family, str(architecture), name, config)
        tensors[name] = _stored_tensor(file, names[name], _picked(part) if part else order)
    require_tensors(path, tensors, expected, names)
    return Checkpoint(
        name=str(file.values.get("general.name") or path.stem),
        family=family.name,
        kind="gguf",
        source=path,
        config=config,
        tensors=fold_logit_scale(tensors, config),
        read_tokenizer=partial(read_gguf_tokenizer, file.values, path),
    )


def _rope_divisors(file: GgufFile) -> tuple[float, ...] | None:
    """llama.cpp's converter writes Llama 3's stretched rope as one divisor per frequency."""
    tensor = file.tensors.get("rope_freqs.weight")
    if tensor is None:
        return None
    return tuple(float(divisor) for divisor in tensor.read().astype(np.float32).reshape(-1))


def _picked(part: RowRange) -> slice:
    return slice(part.start, part.stop)


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


def _stored_tensor(file: GgufFile, name: str, rows: np.ndarray | slice | None) -> StoredTensor:
    """A tensor of the file, or rows of it: in another order, or some."""
    tensor = file.tensors[name]
    block, block_bytes = GGML_QUANT_SIZES[tensor.type]
    plain = tensor.type.name in _PLAIN_TYPES
    read_blocks: Callable[[], np.ndarray] | None = None if plain else partial(_read_ordered, tensor, rows)
    bits = block_bytes * 8 / block
    shape = tensor.shape
    if isinstance(rows, slice):
        shape = (rows.stop - rows.start, *shape[1:])
    return StoredTensor(
        tensor.type.name,
        shape,
        bits,
        partial(_read_float32, file.path, name, tensor, rows, shape),
        read_blocks,
    )


def _read_ordered(tensor: GgufTensor, rows: np.ndarray | slice | None) -> np.ndarray:
    data = tensor.read()
    return data if rows is None else data[rows]


def _read_float32(
    path: Path, name: str, tensor: GgufTensor, rows: np.ndarray | slice | None, shape: tuple[int, ...]
) -> np.ndarray:
    data = _read_ordered(tensor, rows)
    values = np.empty(shape, np.float32)
    # A few rows at a time: the library makes arrays of all that it is given.
    step = _SLAB_ROWS if len(shape) > 1 else len(data)
    try:
        for start in range(0, len(data), step):
            values[start : start + step] = dequantize(data[start : start + step], tensor.type)
    except NotImplementedError as error:
        raise UnsupportedModelError(
            f"{path}: tensor {name} has type {tensor.type.name}, which is not read"
        ) from error
    return values
