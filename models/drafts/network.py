"""What every draft component is when it is exported: a small decoder on the model's hidden states.

    rows → [embed] → (attention?, feed_forward?) × layers → head over the draft vocabulary

The draft vocabulary holds the most frequent ids of the model and, last, one id for all others. Components differ in
what their rows are: a token with features (`feature`), or hidden states of the model (`heads`, `exit`).
Legend: M rows, D hidden size of the model, F feature size.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import nn

from forerun.errors import UnsupportedModelError
from forerun.models.config import ModelConfig
from forerun.models.llama import (
    Attention,
    DecoderOutput,
    FeedForward,
    Head,
    KeyValue,
    Linear,
    RMSNorm,
    Rope,
    run_layers,
)

SUBLAYERS = ("attention", "feed_forward")


@dataclass(frozen=True)
class DraftConfig:
    """A draft component.

    `component` names its kind, `taps` the layers of the model whose hidden states feed it. `network` holds the sizes
    of its own layers; its vocabulary is the draft vocabulary, its hidden size the model's. `sublayers` are those that
    its layers have. `feature_size` is the width of the features that come with a token, 0 for components whose rows
    are hidden states. `heads` share the layers evenly; other components have one. `model_layers` and
    `model_vocabulary_size` are those of the model it drafts for.
    """

    component: str
    network: ModelConfig
    taps: tuple[int, ...]
    sublayers: tuple[str, ...]
    feature_size: int
    model_layers: int
    model_vocabulary_size: int
    heads: int = 1

    def __post_init__(self) -> None:
        """Refuse what no component can be; raises `UnsupportedModelError`."""
        if not self.sublayers or not set(self.sublayers) <= set(SUBLAYERS):
            raise UnsupportedModelError(
                f"a draft's sublayers are {self.sublayers}; they are one or both of {SUBLAYERS}"
            )
        if not self.taps or not all(0 <= tap < self.model_layers for tap in self.taps):
            raise UnsupportedModelError(
                f"a draft taps layers {self.taps}; the model has layers 0 to {self.model_layers - 1}"
            )
        if self.feature_size < 0:
            raise UnsupportedModelError(
                f"a draft's feature_size is {self.feature_size}; it must be 0 or more"
            )
        if self.heads < 1 or self.network.layers % self.heads:
            raise UnsupportedModelError(
                f"a draft has {self.heads} heads and {self.network.layers} layers; the heads share them evenly"
            )

    @property
    def other_id(self) -> int:
        """The draft id of every token that has none of its own."""
        return self.network.vocabulary_size - 1

    def described(self) -> dict[str, Any]:
        """The configuration as JSON holds it."""
        return asdict(self)


def read_draft_config(described: Mapping[str, Any]) -> DraftConfig:
    """The configuration that JSON describes; raises `UnsupportedModelError` if it lacks or garbles a field."""
    try:
        values = {field.name: described[field.name] for field in fields(DraftConfig)}
        lists = {name: tuple(values[name]) for name in ("taps", "sublayers")}
        return DraftConfig(**{**values, **lists, "network": ModelConfig.from_json(values["network"])})
    except (KeyError, TypeError) as error:
        raise UnsupportedModelError(f"the description of a draft lacks or garbles {error}") from error


class FeatureEmbed(nn.Module):
    """A token's own row plus a projection of the features that come with it."""

    def __init__(self, config: DraftConfig) -> None:
        super().__init__()
        size = config.network.hidden_size
        self.weight = nn.Parameter(torch.empty(config.network.vocabulary_size, size), requires_grad=False)
        self.norm = RMSNorm(config.feature_size, config.network.norm_epsilon)
        self.feature_proj = Linear(config.feature_size, size)

    def forward(self, token_ids: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Draft ids int64 [M], features float32 [M, F] → float32 [M, D]."""
        return nn.functional.embedding(token_ids, self.weight) + self.feature_proj(self.norm(features))


class DraftLayer(nn.Module):
    """One layer; a sublayer that the component does not have is None."""

    def __init__(self, config: DraftConfig, rope: Rope) -> None:
        super().__init__()
        self.attention = Attention(config.network, rope) if "attention" in config.sublayers else None
        self.feed_forward = FeedForward(config.network) if "feed_forward" in config.sublayers else None


class DraftNetwork(nn.Module):
    """The exported form of a component, with uninitialised weights."""

    def __init__(self, config: DraftConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = FeatureEmbed(config) if config.feature_size else None
        rope = Rope(config.network)
        self.layers = nn.ModuleList(DraftLayer(config, rope) for _ in range(config.network.layers))
        self.head = Head(config.network)

    def forward(
        self,
        hidden: torch.Tensor,
        positions: torch.Tensor | None = None,
        tree_mask: torch.Tensor | None = None,
        past: Sequence[KeyValue] | None = None,
    ) -> DecoderOutput:
        """Rows [M, D], from `embed` where there is one, through all layers; arguments as for `Decoder`."""
        return run_layers(self, self.config.network, hidden, positions, tree_mask, past)
