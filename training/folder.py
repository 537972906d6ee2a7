"""A trained draft on disk: `draft.safetensors` (its own weights in float16 and its vocabulary) and `draft.json`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from forerun.errors import TrainingError, UnsupportedModelError
from forerun.models.checkpoint import Checkpoint
from forerun.models.drafts import COMPONENTS, Component, DraftConfig, ModelRows, read_draft_config
from forerun.models.llama import Decoder
from forerun.staging import replaced_file
from forerun.training.cache import Vocabulary

WEIGHTS_FILE = "draft.safetensors"
DESCRIPTION_FILE = "draft.json"
FORMAT = "forerun-draft"
VERSION = 1
_VOCABULARY = "vocabulary"


@dataclass(frozen=True)
class TrainedDraft:
    """A draft as its folder holds it: weights by the names of the component's parameters, float32."""

    config: DraftConfig
    vocabulary: Vocabulary
    weights: Mapping[str, torch.Tensor]
    model: Mapping[str, Any]
    training: Mapping[str, Any]


def lend_rows(model: Decoder, vocabulary: Vocabulary, device: torch.device) -> ModelRows:
    """The rows of a model's embedding and head for a draft vocabulary, float32."""
    ids = torch.from_numpy(vocabulary.token_ids.astype(np.int64))

    def rows(weight: torch.Tensor) -> torch.Tensor:
        return weight.detach()[ids].float().to(device)

    norm = model.head.norm.weight.detach().float().to(device)
    return ModelRows(model.config, rows(model.embed.weight), rows(model.head.weight), norm)


def model_facts(checkpoint: Checkpoint, model: Decoder) -> dict[str, Any]:
    """What a draft remembers of the model it was trained for, by which the two are told to belong together."""
    return {
        "name": checkpoint.name,
        "hidden_size": model.config.hidden_size,
        "layers": model.config.layers,
        "vocabulary_size": model.config.vocabulary_size,
        "weights": fingerprint(model),
    }


def fingerprint(model: Decoder) -> str:
    """A hash of all weights as float32; another quantization of the same weights has another."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.named_parameters()):
        digest.update(name.encode())
        digest.update(weight.detach().float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def save_draft(
    folder: Path,
    component: Component,
    vocabulary: Vocabulary,
    model: Mapping[str, Any],
    training: Mapping[str, Any],
) -> None:
    """Write the files, each replaced in one step; raises `TrainingError` if they cannot be written."""
    tensors = {
        name: weight.detach().half().cpu().contiguous() for name, weight in component.named_parameters()
    }
    tensors[_VOCABULARY] = torch.from_numpy(vocabulary.token_ids)
    description = {
        "format": FORMAT,
        "version": VERSION,
        "draft": component.config.described(),
        "model": dict(model),
        "training": dict(training),
    }
    try:
        with replaced_file(folder / WEIGHTS_FILE) as partial:
            save_file(tensors, partial)
        with replaced_file(folder / DESCRIPTION_FILE) as partial:
            partial.write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"cannot write {folder}: {error}") from error


def load_draft(folder: Path) -> TrainedDraft:
    """Read a draft's folder; raises `TrainingError` for one that is none or damaged."""
    try:
        description = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))
        tensors = load_file(folder / WEIGHTS_FILE)
    except FileNotFoundError as error:
        raise TrainingError(
            f"{folder} holds no trained draft ({Path(error.filename or WEIGHTS_FILE).name} is missing);"
            " train one with `forerun train`"
        ) from error
    except (OSError, ValueError, SafetensorError) as error:
        raise TrainingError(f"the draft in {folder} cannot be read: {error}") from error
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise TrainingError(f"{folder / DESCRIPTION_FILE} is not a draft's")
    if description.get("version") != VERSION:
        raise TrainingError(
            f"the draft in {folder} has format version {description.get('version')}, this forerun reads {VERSION}"
        )
    try:
        config = read_draft_config(description["draft"])
        ids = tensors.pop(_VOCABULARY).numpy()
        vocabulary = Vocabulary(ids, config.model_vocabulary_size)
        weights = {name: tensor.float() for name, tensor in tensors.items()}
        return TrainedDraft(config, vocabulary, weights, description["model"], description["training"])
    except (KeyError, UnsupportedModelError) as error:
        raise TrainingError(f"the draft in {folder} is damaged: {error}") from error


def restore(draft: TrainedDraft, model: Decoder) -> Component:
    """The component with its trained weights and rows lent by the model; raises `TrainingError` if they do not fit."""
    facts = {
        "hidden_size": model.config.hidden_size,
        "layers": model.config.layers,
        "vocabulary_size": model.config.vocabulary_size,
    }
    for name, value in facts.items():
        if draft.model[name] != value:
            raise TrainingError(
                f"the draft was trained for a model with {name} {draft.model[name]}, this one has {value}"
            )
    component = COMPONENTS[draft.config.component](
        draft.config, lend_rows(model, draft.vocabulary, torch.device("cpu"))
    )
    try:
        component.load_state_dict(dict(draft.weights))
    except RuntimeError as error:
        raise TrainingError(f"the draft's weights do not fit its description: {error}") from error
    return component
