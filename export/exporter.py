"""From a model file, or a draft network with its weights, to an export directory."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from forerun.errors import ExportError, OptionError
from forerun.export.component import Component, ExportReport, Progress, write_component
from forerun.export.policies import POLICIES, KeepPolicy, find_policy
from forerun.export.signature import (
    CHAT_TEMPLATE_FILE,
    DRAFT_FAMILY,
    TOKENIZER_FILE,
    VOCABULARY_FILE,
    Form,
    draft_form,
)
from forerun.models.checkpoint import StoredTensor, TokenizerFiles
from forerun.models.config import ModelConfig
from forerun.models.drafts import DraftConfig, DraftNetwork
from forerun.models.families import family_named
from forerun.models.sources import open_checkpoint


def export_model(
    source: Path | str,
    output: Path | str,
    quant: str | None = None,
    progress: Progress | None = None,
    *,
    context: int | None = None,
) -> ExportReport:
    """Write `source` (GGUF file, Hugging Face folder or `package:NAME`) as an export directory.

    `quant` is keep, f32, q8, q6, q5 or q4; None means keep for GGUF and q8 for Hugging Face folders. `progress` is
    called with what is being done and the part done, 0 … 1. `context` limits the positions that the export has
    rotary tables for; None means the model's own. The directory appears whole or not at all; an
    older export of that name is replaced. Raises `ModelFileError`, `UnsupportedModelError`, `OptionError`,
    `ExportError`, `OutputError`.
    """
    report = progress or (lambda _text, _part: None)
    report("reading the model", 0.0)
    checkpoint = open_checkpoint(source)
    config = _with_context(checkpoint.config, context)
    policy = find_policy(quant, checkpoint.kind)
    tokenizer = checkpoint.read_tokenizer()
    files = {TOKENIZER_FILE: tokenizer.tokenizer_json.encode()}
    if tokenizer.chat_template is not None:
        files[CHAT_TEMPLATE_FILE] = tokenizer.chat_template.encode()
    component = Component(
        name=checkpoint.name,
        form=Form(config),
        # Only structure is traced: the decoder's weights stay uninitialised memory that is never touched.
        network=family_named(checkpoint.family).build(config),
        tensors=checkpoint.tensors,
        facts={
            "family": checkpoint.family,
            "source": str(checkpoint.source),
            "tokenizer": _described(tokenizer),
        },
        files=files,
    )
    return write_component(component, policy, Path(output), report)


def _with_context(config: ModelConfig, context: int | None) -> ModelConfig:
    if context is None:
        return config
    if not 1 <= context <= config.context_length:
        raise OptionError(
            f"context is {context}; the model has {config.context_length} positions, so 1 to {config.context_length}"
        )
    return replace(config, context_length=context)


def export_draft(
    network: DraftNetwork,
    weights: Mapping[str, torch.Tensor],
    output: Path | str,
    quant: str,
    *,
    vocabulary: np.ndarray,
    model: Mapping[str, Any],
    name: str,
    progress: Progress | None = None,
) -> ExportReport:
    """Write a draft component as an export directory.

    Args:
        network: the component; its own weights are not looked at.
        weights: every parameter of the network by name, any float dtype.
        output: the directory; appears whole or not at all.
        quant: f32, q8, q6, q5, q4, q4-all or q4-vocab.
        vocabulary: int32 [draft vocabulary - 1], the model's token id of each draft id but the last.
        model: facts about the model that the draft belongs to, stored as given; JSON must hold them.
        name: what the component is called.
        progress: as for `export_model`.

    Raises:
        OptionError: no such quantization, or one that a draft cannot have.
        ExportError: weights or vocabulary do not fit the network.
        OutputError: the directory cannot be written.
    """
    config = network.config
    if quant == KeepPolicy.name:
        known = ", ".join(known for known in POLICIES if known != KeepPolicy.name)
        raise OptionError(f"a draft has no blocks of a file to keep; quantizations of a draft: {known}")
    component = Component(
        name=name,
        form=draft_form(config),
        network=network,
        tensors=_stored(network, weights),
        facts={
            "family": DRAFT_FAMILY,
            "source": "",
            "tokenizer": _described(TokenizerFiles("", None, None, (), False)),
            "draft": {**config.described(), "model": dict(model)},
        },
        files={VOCABULARY_FILE: _checked_vocabulary(config, vocabulary).tobytes()},
    )
    return write_component(
        component, find_policy(quant, DRAFT_FAMILY), Path(output), progress or (lambda _text, _part: None)
    )


def _stored(network: DraftNetwork, weights: Mapping[str, torch.Tensor]) -> dict[str, StoredTensor]:
    """The weights as a model file would give them, checked against the network's parameters."""
    expected = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    wrong = sorted(expected.keys() ^ weights.keys())
    if wrong:
        raise ExportError(
            f"the weights and the draft network differ in {', '.join(wrong[:5])}"
            f"{f' and {len(wrong) - 5} more' if len(wrong) > 5 else ''}; give one weight for each parameter"
        )

    def store(tensor: torch.Tensor) -> StoredTensor:
        return StoredTensor(
            str(tensor.dtype).removeprefix("torch."),
            tuple(tensor.shape),
            8.0 * tensor.element_size(),
            lambda: np.asarray(tensor.detach().cpu().float().numpy()),
        )

    for name, shape in expected.items():
        if tuple(weights[name].shape) != shape:
            raise ExportError(
                f"weight {name} has shape {list(weights[name].shape)}, the network {list(shape)}"
            )
    return {name: store(weights[name]) for name in expected}


def _checked_vocabulary(config: DraftConfig, vocabulary: np.ndarray) -> np.ndarray:
    """The ids as little-endian int32, each at most once and known to the model."""
    ids = np.asarray(vocabulary)
    if ids.shape != (config.other_id,) or ids.dtype.kind not in "iu":
        raise ExportError(
            f"the draft vocabulary is {ids.dtype} of shape {list(ids.shape)}; it must be whole numbers "
            f"[{config.other_id}], one for each draft id but the last"
        )
    if len(ids) and not 0 <= ids.min() <= ids.max() < config.model_vocabulary_size:
        raise ExportError(
            f"the draft vocabulary names token ids {ids.min()} to {ids.max()}; the model has 0 to "
            f"{config.model_vocabulary_size - 1}"
        )
    if len(np.unique(ids)) != len(ids):
        raise ExportError("the draft vocabulary names a token id twice")
    return ids.astype("<i4")


def _described(tokenizer: TokenizerFiles) -> dict[str, Any]:
    return {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_ids": list(tokenizer.eos_token_ids),
        "add_bos": tokenizer.add_bos,
    }
