"""Models in a Hugging Face folder: config.json, safetensors (single or sharded), tokenizer files."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from forerun.errors import ModelFileError, UnsupportedModelError
from forerun.models.checkpoint import (
    Checkpoint,
    RowRange,
    StoredTensor,
    TokenizerFiles,
    fold_logit_scale,
    require_rows,
    require_tensors,
)
from forerun.models.families import family_of_huggingface
from forerun.models.tokenizer_files import end_token_ids, load_tokenizer_json

_BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16}


@dataclass(frozen=True)
class _Entry:
    """A tensor in a safetensors file."""

    path: Path
    name: str
    type_name: str
    shape: tuple[int, ...]

    def stored(self, part: RowRange | None) -> StoredTensor:
        """The tensor, or some of its rows."""
        shape = self.shape if part is None else (part.stop - part.start, *self.shape[1:])
        return StoredTensor(
            self.type_name, shape, _BITS.get(self.type_name, 8), partial(_read_float32, self, part)
        )


def open_huggingface(folder: Path) -> Checkpoint:
    """Open a Hugging Face folder; weights are read only when asked for.

    Raises `ModelFileError` for missing, truncated or inconsistent files and `UnsupportedModelError` for
    another architecture, naming the supported ones.
    """
    values = read_json(folder / "config.json")
    family = family_of_huggingface(values.get("model_type"), folder)
    try:
        config = family.config_from_huggingface(values)
    except KeyError as error:
        raise ModelFileError(f"{folder / 'config.json'} has no entry {error}") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise ModelFileError(f"{folder / 'config.json'} has an entry of the wrong kind: {error}") from error
    files = {name: family.huggingface_name(name) for name in family.tensor_shapes(config)}
    stored = _stored_tensors(folder)
    tensors = {}
    for name, file_name in files.items():
        if file_name not in stored:
            continue
        part = family.rows_in_file(name, config)
        require_rows(folder, file_name, stored[file_name].shape, part)
        offset = family.norm_offset if name.endswith("norm.weight") else 0.0
        tensors[name] = _with_offset(stored[file_name].stored(part), offset)
    require_tensors(folder, tensors, family.tensor_shapes(config), files)
    return Checkpoint(
        name=str(values.get("_name_or_path") or folder.name).rstrip("/").split("/")[-1] or folder.name,
        family=family.name,
        kind="huggingface",
        source=folder,
        config=config,
        tensors=fold_logit_scale(tensors, config),
        read_tokenizer=partial(read_tokenizer, folder, values),
    )


def read_json(path: Path, required: bool = True) -> dict[str, Any]:
    """The object in a JSON file, {} if it is absent and not required; raises `ModelFileError`."""
    if not path.exists() and not required:
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelFileError(f"{path} is missing; a model folder needs it") from error
    except (OSError, ValueError) as error:
        raise ModelFileError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(found, dict):
        raise ModelFileError(f"{path} holds a {type(found).__name__}, not a JSON object")
    return found


def _stored_tensors(folder: Path) -> dict[str, _Entry]:
    """Every tensor of every safetensors file the folder names."""
    index_path = folder / "model.safetensors.index.json"
    # A single file goes before an index, as in transformers.
    if index_path.exists() and not (folder / "model.safetensors").exists():
        weight_map = read_json(index_path).get("weight_map")
        if not isinstance(weight_map, dict):
            raise ModelFileError(f"{index_path} has no weight_map")
        paths = [folder / str(name) for name in sorted(set(weight_map.values()))]
    else:
        paths = [folder / "model.safetensors"]
    stored: dict[str, _Entry] = {}
    for path in paths:
        stored.update(_tensors_of_file(path))
    return stored


def _tensors_of_file(path: Path) -> dict[str, _Entry]:
    if not path.exists():
        raise ModelFileError(f"{path} is missing; only safetensors weights are read")
    stored = {}
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (the file is no mapping)
                view = file.get_slice(name)
                stored[name] = _Entry(path, name, view.get_dtype(), tuple(view.get_shape()))
    except (SafetensorError, OSError) as error:
        raise ModelFileError(f"{path} is truncated or not a safetensors file: {error}") from error
    return stored


def _with_offset(tensor: StoredTensor, offset: float) -> StoredTensor:
    """The tensor with a number added to each element as it is read."""
    if not offset:
        return tensor
    return replace(tensor, read_float32=lambda: tensor.read_float32() + np.float32(offset))


def _read_float32(entry: _Entry, part: RowRange | None) -> np.ndarray:
    if entry.type_name not in _BITS:
        raise UnsupportedModelError(
            f"{entry.path}: tensor {entry.name} has type {entry.type_name}; "
            f"supported in safetensors: {', '.join(_BITS)}"
        )
    try:
        with safe_open(entry.path, framework="pt") as file:
            tensor: torch.Tensor = (
                file.get_tensor(entry.name)
                if part is None
                else file.get_slice(entry.name)[part.start : part.stop]
            )
    except (SafetensorError, OSError) as error:
        raise ModelFileError(f"{entry.path}: tensor {entry.name} cannot be read: {error}") from error
    values: np.ndarray = tensor.to(torch.float32).numpy()
    return values


def read_tokenizer(folder: Path, config: Mapping[str, Any]) -> TokenizerFiles:
    """The tokenizer of a Hugging Face folder whose config.json holds `config`; raises `ModelFileError`."""
    path = folder / "tokenizer.json"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ModelFileError(
            f"{path} is missing; where transformers reads the folder's tokenizer, its"
            " AutoTokenizer.from_pretrained(folder).save_pretrained(folder) writes one"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ModelFileError(f"{path} cannot be read: {error}") from error
    tokenizer = load_tokenizer_json(text, path)
    # Older folders name the special tokens in a file of its own.
    settings = read_json(folder / "special_tokens_map.json", required=False)
    settings |= read_json(folder / "tokenizer_config.json", required=False)
    generation = read_json(folder / "generation_config.json", required=False)
    bos = _token_id(tokenizer, settings.get("bos_token"))
    bos = config.get("bos_token_id") if bos is None else bos
    declared = [_token_id(tokenizer, settings.get("eos_token"))]
    declared += [config.get("eos_token_id"), generation.get("eos_token_id")]
    # Whether a prompt starts with the bos token is known only to the tokenizer's own post-processor.
    first = tokenizer.encode("a").ids[:1]
    return TokenizerFiles(
        tokenizer_json=text,
        chat_template=_chat_template(folder, settings),
        bos_token_id=bos,
        eos_token_ids=end_token_ids(tokenizer, declared),
        add_bos=bos is not None and first == [bos],
    )


def _token_id(tokenizer: Any, token: Any) -> int | None:
    """The id of a token given as text or as {"content": text}."""
    content = token.get("content") if isinstance(token, dict) else token
    return tokenizer.token_to_id(content) if isinstance(content, str) else None


def _chat_template(folder: Path, settings: Mapping[str, Any]) -> str | None:
    """The chat template: a file of its own goes before tokenizer_config.json, as in transformers."""
    path = folder / "chat_template.jinja"
    if path.exists():
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ModelFileError(f"{path} cannot be read: {error}") from error
    found = read_json(folder / "chat_template.json", required=False).get("chat_template")
    found = settings.get("chat_template") if found is None else found
    if isinstance(found, list):
        named = {entry.get("name"): entry.get("template") for entry in found if isinstance(entry, dict)}
        found = named.get("default")
    return found if isinstance(found, str) else None
