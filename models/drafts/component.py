"""What the draft components have in common while they are trained.

A component keeps its own small weights; the rows of the model's embedding and head for the draft vocabulary are lent
to it, so they are neither trained nor stored. Its last draft id stands for all tokens that have none of their own and
has rows of its own.
Legend: M rows, T taps, D hidden size, V draft vocabulary.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from forerun.models.config import ModelConfig
from forerun.models.drafts.network import DraftConfig, DraftLayer
from forerun.models.llama import RMSNorm, Rope

# Of the model's own norm before its head: logits that are smaller than a trained layer's.
START_OF_HEAD = 0.25


@dataclass(frozen=True)
class ModelRows:
    """What a model lends: its configuration, and rows of its embedding and head, float32 [V - 1, D] each."""

    config: ModelConfig
    embedding: torch.Tensor
    head: torch.Tensor
    head_norm: torch.Tensor  # float32 [D]


@dataclass(frozen=True)
class Batch:
    """Rows of whole conversations, one after the other.

    Attributes:
        token_ids: draft ids, int64 [M].
        states: hidden states of the model after each tapped layer, float32 [M, T, D].
        positions: within the conversation, int64 [M].
        lasts: the row at which the row's conversation ends, int64 [M].
        lengths: rows of each conversation.
    """

    token_ids: torch.Tensor
    states: torch.Tensor
    positions: torch.Tensor
    lasts: torch.Tensor
    lengths: tuple[int, ...]


@dataclass(frozen=True)
class Prediction:
    """What a component predicts at one draft position: hidden [n, D] before the head's norm, made at `rows` int64 [n]
    for the token that follows row `rows + ahead` (0: the token that the model itself predicts at the row)."""

    hidden: torch.Tensor
    rows: torch.Tensor
    ahead: int


class Component(nn.Module, ABC):
    """A draft component in training: modules named as in the network it is exported as, and the lent rows."""

    name: ClassVar[str]
    summary: ClassVar[str]
    # Beginnings of the names of parameters that `start_from` sets and training leaves alone.
    constant: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: DraftConfig, lent: ModelRows) -> None:
        super().__init__()
        self.config = config
        size = config.network.hidden_size
        self.register_buffer("lent_embedding", lent.embedding, persistent=False)
        self.register_buffer("lent_head", lent.head, persistent=False)
        rope = Rope(config.network)
        self.layers = nn.ModuleList(DraftLayer(config, rope) for _ in range(config.network.layers))
        self.head_norm = RMSNorm(size, config.network.norm_epsilon)
        self.other_head = nn.Parameter(lent.head.mean(dim=0))

    @classmethod
    @abstractmethod
    def configure(cls, model: ModelConfig, vocabulary_size: int, options: Mapping[str, Any]) -> DraftConfig:
        """The configuration for a model; raises `OptionError` for options that it cannot have."""

    @abstractmethod
    def start_from(self, model: Mapping[str, torch.Tensor], lent: ModelRows, states: torch.Tensor) -> None:
        """Set the weights to start from: the model's by their names, and some of its states at the taps [n, T, D]."""

    @abstractmethod
    def predict(self, batch: Batch) -> list[Prediction]:
        """What it drafts from every row, position by position."""

    @abstractmethod
    def exported(self) -> dict[str, torch.Tensor]:
        """The weights of the `DraftNetwork` that it is exported as, float32."""

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """float32 [n, D] → logits [n, V] over the draft vocabulary."""
        return self.head_norm(hidden) @ self.head_weight().t()

    def head_weight(self) -> torch.Tensor:
        """The rows lent by the model's head, and the own one: [V, D]."""
        return torch.cat([self.get_buffer("lent_head"), self.other_head[None]])

    def start_fresh(self, lent: ModelRows) -> None:
        """Layers of random weights that add little yet, and a head that is not sure of anything.

        Better than layers of the model: those expect, and make, hidden states of which a few dimensions are hundreds
        of times as large as the others.
        """
        with torch.no_grad():
            for name, parameter in self.layers.named_parameters():
                if parameter.ndim == 1:
                    parameter.fill_(0.0 if name.endswith("bias") else 1.0)
                else:
                    adds = name.endswith(("o_proj.weight", "down_proj.weight"))
                    parameter.normal_(std=(0.1 if adds else 1.0) * parameter.shape[1] ** -0.5)
            self.head_norm.weight.copy_(START_OF_HEAD * lent.head_norm)

    def common_exported(self) -> dict[str, torch.Tensor]:
        """The layers' and the head's weights."""
        weights = {
            name: weight.detach() for name, weight in self.named_parameters() if name.startswith("layers.")
        }
        return weights | {
            "head.norm.weight": self.head_norm.weight.detach(),
            "head.weight": self.head_weight().detach(),
        }
