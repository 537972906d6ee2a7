"""Tiny random draft components of every form, for a model as `tiny_models` makes them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny_models import VOCABULARY_SIZE

from forerun.export import export_draft
from forerun.models.config import ModelConfig
from forerun.models.drafts import DraftConfig, DraftNetwork

# Name → what of the form differs: layers, sublayers, whether tokens come with features.
DRAFTS: dict[str, tuple[int, tuple[str, ...], bool]] = {
    "feature": (1, ("attention", "feed_forward"), True),
    "feature-deep": (2, ("attention", "feed_forward"), True),
    "heads": (3, ("feed_forward",), False),
    "exit-attention": (1, ("attention",), False),
    "exit-full": (1, ("attention", "feed_forward"), False),
}
# Not a multiple of a block of 16 logits.
DRAFT_VOCABULARY = 105
FACTS: Mapping[str, Any] = {
    "hidden_size": 64,
    "layers": 2,
    "vocabulary_size": VOCABULARY_SIZE,
    "weights": "f00",
}


@dataclass(frozen=True)
class TinyDraft:
    """A draft's export, and the network with the weights that went into it."""

    directory: Path
    network: DraftNetwork
    vocabulary: np.ndarray


def draft_config(form: str, **changes: Any) -> DraftConfig:
    """The configuration of one of `DRAFTS`."""
    layers, sublayers, features = DRAFTS[form]
    network = ModelConfig(
        layers=layers,
        hidden_size=64,
        heads=4,
        kv_heads=2,
        head_dim=16,
        feed_forward_size=96,
        vocabulary_size=DRAFT_VOCABULARY,
        context_length=128,
        rope_theta=10000.0,
        norm_epsilon=1e-5,
        tied_embeddings=False,
    )
    fields = {
        "component": form.split("-", maxsplit=1)[0],
        "network": network,
        "taps": (0, 1) if features else (1,),
        "sublayers": sublayers,
        "feature_size": 2 * 64 if features else 0,
        "model_layers": 2,
        "model_vocabulary_size": VOCABULARY_SIZE,
    }
    return DraftConfig(**{**fields, **changes})


def random_draft(config: DraftConfig, seed: int) -> DraftNetwork:
    """A network with weights large enough that every part of it shows in the logits."""
    network = DraftNetwork(config)
    random = np.random.default_rng(seed)
    for name, parameter in network.named_parameters():
        noise = random.standard_normal(tuple(parameter.shape)).astype(np.float32)
        scaled = 1 + noise / 4 if parameter.ndim == 1 else noise / np.sqrt(np.float32(noise.shape[-1]))
        parameter.data = torch.from_numpy(scaled * (8 if name == "embed.weight" else 1))
    return network.eval()


def write_draft(directory: Path, form: str, quant: str = "f32", seed: int = 0, **changes: Any) -> TinyDraft:
    """Export a random draft component."""
    network = random_draft(draft_config(form, **changes), seed)
    random = np.random.default_rng(seed)
    vocabulary = random.choice(VOCABULARY_SIZE, network.config.other_id, replace=False).astype(np.int32)
    weights = dict(network.named_parameters())
    export_draft(network, weights, directory, quant, vocabulary=vocabulary, model=FACTS, name=form)
    return TinyDraft(directory, network, vocabulary)
