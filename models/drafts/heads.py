"""`heads`: independent heads for the positions ahead (blockwise parallel decoding, Stern et al., 2018; Medusa, Cai et
al., 2024), each one or several feed-forward layers deep (KOALA, Zhang et al., 2024).

All of them read the model's last hidden state; none sees the tokens that the others propose.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch

from forerun.errors import OptionError
from forerun.models.config import ModelConfig
from forerun.models.drafts.component import Batch, Component, ModelRows, Prediction
from forerun.models.drafts.network import DraftConfig


class ParallelHeads(Component):
    """Options: `heads` (3), `depth` (1) layers each, `feed_forward_size` (as the hidden size)."""

    name: ClassVar[str] = "heads"
    summary: ClassVar[str] = "independent heads on the model's last hidden state, one for each position ahead"

    @classmethod
    def configure(cls, model: ModelConfig, vocabulary_size: int, options: Mapping[str, Any]) -> DraftConfig:
        """The layers of all heads, one head after the other."""
        heads, depth = int(options.get("heads", 3)), int(options.get("depth", 1))
        size = int(options.get("feed_forward_size", model.hidden_size))
        if heads < 1 or depth < 1 or size < 1:
            raise OptionError(
                f"component 'heads': heads {heads}, depth {depth}, feed_forward_size {size}; all must be 1 or more"
            )
        network = replace(model.own_layers(heads * depth, vocabulary_size), feed_forward_size=size)
        return DraftConfig(
            cls.name,
            network,
            (model.layers - 1,),
            ("feed_forward",),
            0,
            model.layers,
            model.vocabulary_size,
            heads=heads,
        )

    def start_from(self, model: Mapping[str, torch.Tensor], lent: ModelRows, states: torch.Tensor) -> None:
        """Each head as the model's own: its layers add nothing yet."""
        scale = self.config.network.hidden_size**-0.5
        with torch.no_grad():
            self.head_norm.weight.copy_(lent.head_norm)
            for layer in self.layers:
                feed_forward = layer.feed_forward
                feed_forward.norm.weight.fill_(1.0)
                feed_forward.gate_proj.weight.normal_(std=scale)
                feed_forward.up_proj.weight.normal_(std=scale)
                feed_forward.down_proj.weight.zero_()

    def predict(self, batch: Batch) -> list[Prediction]:
        """Head h (from 1) speaks of the token after row i + h."""
        rows = torch.arange(len(batch.token_ids), device=batch.token_ids.device)
        depth = self.config.network.layers // self.config.heads
        predictions = []
        for head in range(self.config.heads):
            inside = rows + head + 1 <= batch.lasts
            hidden = batch.states[inside, 0]
            for layer in self.layers[head * depth : (head + 1) * depth]:
                hidden = layer.feed_forward(hidden)
            predictions.append(Prediction(hidden, rows[inside], head + 1))
        return predictions

    def exported(self) -> dict[str, torch.Tensor]:
        """As they are."""
        return self.common_exported()
