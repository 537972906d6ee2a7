"""`feature`: one or two decoder layers over the model's hidden states and the next token (EAGLE, Li et al., 2024).

A row stands for a token and the row of the model before it. It holds the token's embedding and features: the hidden
states that the model's tapped layers had there or, for tokens that are drafted themselves, the component's own output,
which comes in a place of its own (EAGLE-3, Li et al., 2025). In training the component reads its own output as it
will when it drafts.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from forerun.errors import OptionError
from forerun.models.config import ModelConfig
from forerun.models.drafts.component import Batch, Component, ModelRows, Prediction
from forerun.models.drafts.differentiable import run_layer
from forerun.models.drafts.network import DraftConfig
from forerun.models.llama import KeyValue, Linear, RMSNorm

# Positions that are drafted one after the other in training; later ones are much like the last of these.
UNROLLED = 3


class FeatureDraft(Component):
    """Options: `taps`, `layers` (1)."""

    name: ClassVar[str] = "feature"
    summary: ClassVar[str] = (
        "a decoder layer on the model's hidden states and the next token, one token after the other"
    )
    # The projection after it can scale each feature as well.
    constant: ClassVar[tuple[str, ...]] = ("feature_norm.",)

    def __init__(self, config: DraftConfig, lent: ModelRows) -> None:
        super().__init__(config, lent)
        size = config.network.hidden_size
        self.other_embedding = nn.Parameter(lent.embedding.mean(dim=0))
        self.token_proj = Linear(size, size)
        self.feature_norm = RMSNorm(config.feature_size, config.network.norm_epsilon)
        self.feature_proj = Linear(config.feature_size, size)

    @classmethod
    def configure(cls, model: ModelConfig, vocabulary_size: int, options: Mapping[str, Any]) -> DraftConfig:
        """One layer shaped like the model's; by default it taps the model after a third, two thirds and all layers."""
        layers = int(options.get("layers", 1))
        if layers < 1:
            raise OptionError(f"component 'feature': layers is {layers}; it must be 1 or more")
        ends = (model.layers // 3 - 1, 2 * model.layers // 3 - 1, model.layers - 1)
        taps = tuple(options.get("taps") or sorted({max(end, 0) for end in ends}))
        network = model.own_layers(layers, vocabulary_size)
        size = (len(taps) + 1) * model.hidden_size
        return DraftConfig(
            cls.name,
            network,
            taps,
            ("attention", "feed_forward"),
            size,
            model.layers,
            model.vocabulary_size,
        )

    def start_from(self, model: Mapping[str, torch.Tensor], lent: ModelRows, states: torch.Tensor) -> None:
        """Fresh layers on the token's row, to which features add little yet, after a norm that brings each to the
        same size.
        """
        self.start_fresh(lent)
        with torch.no_grad():
            # Not as they are: where head and embedding are one, a row would foretell its own token.
            self.token_proj.weight.normal_(std=self.config.network.hidden_size**-0.5)
            self.feature_norm.weight.copy_(_evening_out(states, self.config.network.norm_epsilon))
            self.feature_proj.weight.normal_(std=0.02 * self.config.feature_size**-0.5)

    def predict(self, batch: Batch) -> list[Prediction]:
        """Row i first reads the model's states there and token i + 1, then its own output and token i + 2, …"""
        count = len(batch.token_ids)
        rows = torch.arange(count, device=batch.token_ids.device)
        size = self.config.network.hidden_size
        features, part = batch.states.flatten(1), slice(size, None)
        pasts: list[list[KeyValue]] = [[] for _ in self.layers]
        predictions = []
        for ahead in range(1, UNROLLED + 1):
            tokens = batch.token_ids[(rows + ahead).clamp(max=count - 1)]
            hidden = self._tokens(tokens) + self._project(features, part)
            # Rows at the end of the context have no next position; what they predict is not looked at.
            positions = (batch.positions + ahead - 1).clamp(max=self.config.network.context_length - 1)
            for layer, past in zip(self.layers, pasts, strict=True):
                hidden, present = run_layer(layer, hidden, positions, batch.lengths, past)
                assert present is not None
                past.append(present)
            inside = rows + ahead <= batch.lasts
            predictions.append(Prediction(hidden[inside], rows[inside], ahead))
            features, part = hidden, slice(size)
        return predictions

    def exported(self) -> dict[str, torch.Tensor]:
        """The tokens' projection is folded into their rows."""
        table = torch.cat([self.get_buffer("lent_embedding"), self.other_embedding[None]])
        return self.common_exported() | {
            "embed.weight": (table @ self.token_proj.weight.t()).detach(),
            "embed.norm.weight": self.feature_norm.weight.detach(),
            "embed.feature_proj.weight": self.feature_proj.weight.detach(),
        }

    def _tokens(self, tokens: torch.Tensor) -> torch.Tensor:
        """The projected rows of draft ids."""
        lent, other = self.get_buffer("lent_embedding"), self.config.other_id
        rows = nn.functional.embedding(tokens.clamp(max=other - 1), lent)
        return self.token_proj(torch.where((tokens == other)[:, None], self.other_embedding, rows))

    def _project(self, features: torch.Tensor, part: slice) -> torch.Tensor:
        """Features [M, n] in one part of their places, the others being 0, normalized and projected."""
        norm, size = self.feature_norm, self.config.feature_size
        squares = features.square().sum(dim=1, keepdim=True) / size
        normed = features * (squares + norm.epsilon).rsqrt() * norm.weight[part]
        return nn.functional.linear(normed, self.feature_proj.weight[:, part])


def _evening_out(states: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Norm weights [F] that give every feature a root mean square of 1, for states [n, T, D] of the model; what the
    component puts out itself is taken to be like the last of them.
    """
    count, _, size = states.shape
    given = torch.cat([states.new_zeros(count, size), states.flatten(1)], dim=1)
    own = torch.cat([states[:, -1], states.new_zeros(count, states[0].numel())], dim=1)
    weights = [
        nn.functional.rms_norm(rows, rows.shape[1:], None, epsilon)
        .square()
        .mean(dim=0)
        .clamp_min(1e-6)
        .rsqrt()
        for rows in (own, given)
    ]
    return torch.cat([weights[0][:size], weights[1][size:]])
