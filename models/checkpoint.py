"""What every model file is turned into before anything else sees it: config, named tensors, tokenizer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from forerun.errors import ModelFileError
from forerun.models.config import ModelConfig


@dataclass(frozen=True)
class StoredTensor:
    """One tensor as its file holds it; nothing is read before one of the readers is called.

    `type_name` is the file's own name for the type (F32, BF16, Q4_1, …). `read_float32` returns float32 of
    `shape`. `read_blocks` returns the raw quantization blocks, uint8 [N, bytes per row], and is None where
    the file holds plain numbers.
    """

    type_name: str
    shape: tuple[int, ...]
    bits_per_weight: float
    read_float32: Callable[[], np.ndarray]
    read_blocks: Callable[[], np.ndarray] | None = None


@dataclass(frozen=True)
class RowRange:
    """Where a weight lies in a stored tensor that joins several: its rows from `start` to `stop`, of `total`."""

    start: int
    stop: int
    total: int


@dataclass(frozen=True)
class TokenizerFiles:
    """The tokenizer as the runtime reads it. `add_bos`: a prompt starts with `bos_token_id`."""

    tokenizer_json: str
    chat_template: str | None
    bos_token_id: int | None
    eos_token_ids: tuple[int, ...]
    add_bos: bool


@dataclass(frozen=True)
class Checkpoint:
    """A model file opened. `kind` is "gguf" or "huggingface"; tensors are named as `Decoder` names them."""

    name: str
    family: str
    kind: str
    source: Path
    config: ModelConfig
    tensors: Mapping[str, StoredTensor]
    read_tokenizer: Callable[[], TokenizerFiles]


def require_rows(source: Path, file_name: str, shape: tuple[int, ...], rows: RowRange | None) -> None:
    """Check that a tensor of several weights has as many rows as they have; raises `ModelFileError` naming it."""
    if rows is not None and shape[0] != rows.total:
        raise ModelFileError(
            f"{source}: tensor {file_name} has shape {list(shape)}, its configuration says {rows.total} rows"
        )


def fold_logit_scale(tensors: Mapping[str, StoredTensor], config: ModelConfig) -> dict[str, StoredTensor]:
    """The tensors with the factor of the logits in the last norm's weight, as the head has no other place for it."""
    name, scale = "head.norm.weight", config.logit_scale
    if scale == 1.0 or name not in tensors:
        return dict(tensors)
    norm = tensors[name]
    return {**tensors, name: replace(norm, read_float32=lambda: norm.read_float32() * np.float32(scale))}


def require_tensors(
    source: Path,
    found: Mapping[str, StoredTensor],
    expected: Mapping[str, tuple[int, ...]],
    file_names: Mapping[str, str],
) -> None:
    """Check that `found` holds every tensor of `expected` in its shape; raises `ModelFileError` naming them.

    `file_names` maps our names to those in the file, which is what the message shows.
    """
    missing = [file_names[name] for name in expected if name not in found]
    if missing:
        shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise ModelFileError(
            f"{source}: tensors are missing: {shown}; the file is incomplete or not what it says"
        )
    for name, shape in expected.items():
        if found[name].shape != shape:
            raise ModelFileError(
                f"{source}: tensor {file_names[name]} has shape {list(found[name].shape)}, "
                f"its configuration says {list(shape)}"
            )
