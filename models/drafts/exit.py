"""`exit`: an adapter after one of the model's layers that drafts in place of the layers above it.

With attention alone it is Kangaroo's (Liu et al., 2024), with a whole layer EESD's (Liu et al., 2024). The model's
layers below it run for every drafted token, and the verify call goes on from them.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from forerun.errors import OptionError
from forerun.models.config import ModelConfig
from forerun.models.drafts.component import Batch, Component, ModelRows, Prediction
from forerun.models.drafts.differentiable import run_layer
from forerun.models.drafts.network import DraftConfig


class ExitAdapter(Component):
    """Options: `after` (layers of the model before the adapter; a sixth of them), `form` (`kangaroo` or `eesd`)."""

    name: ClassVar[str] = "exit"
    summary: ClassVar[str] = "an adapter after the model's first layers, which draft with it"

    @classmethod
    def configure(cls, model: ModelConfig, vocabulary_size: int, options: Mapping[str, Any]) -> DraftConfig:
        """One layer, or its attention alone."""
        after = int(options.get("after", max(model.layers // 6, 1)))
        form = options.get("form", "kangaroo")
        if not 1 <= after < model.layers:
            raise OptionError(f"component 'exit': after is {after}; it must be 1 to {model.layers - 1}")
        if form not in ("kangaroo", "eesd"):
            raise OptionError(f"component 'exit': form is {form!r}; it is kangaroo or eesd")
        network = model.own_layers(1, vocabulary_size)
        sublayers = ("attention",) if form == "kangaroo" else ("attention", "feed_forward")
        return DraftConfig(cls.name, network, (after - 1,), sublayers, 0, model.layers, model.vocabulary_size)

    def start_from(self, model: Mapping[str, torch.Tensor], lent: ModelRows, states: torch.Tensor) -> None:
        """As the model's last layer."""
        prefix = f"layers.{lent.config.layers - 1}."
        state = {name.removeprefix(prefix): w for name, w in model.items() if name.startswith(prefix)}
        own = self.layers[0].state_dict()
        self.layers[0].load_state_dict({name: state[name] for name in own})
        with torch.no_grad():
            self.head_norm.weight.copy_(lent.head_norm)

    def predict(self, batch: Batch) -> list[Prediction]:
        """For every row the token that the model draws after it."""
        rows = torch.arange(len(batch.token_ids), device=batch.token_ids.device)
        hidden, _ = run_layer(self.layers[0], batch.states[:, 0], batch.positions, batch.lengths)
        return [Prediction(hidden, rows, 0)]

    def exported(self) -> dict[str, torch.Tensor]:
        """As it is."""
        return self.common_exported()
