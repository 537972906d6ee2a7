"""The model's hidden states on a text: from a compiled bundle, or from torch where there is none or there is a GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch

from forerun.models.llama import Decoder, layer_masks
from forerun.runtime.session import LoadedProgram, Session

# Token ids and layers → float [tokens, layers, D], the states after those layers, in the order given.
StatesOf: TypeAlias = Callable[[Sequence[int], Sequence[int]], torch.Tensor]


class BundleStates:
    """The states that drafts will be made from, quantization included; on two CPU cores several times as fast as torch
    in bfloat16.
    """

    def __init__(self, bundle: Path, threads: int | None = None) -> None:
        self._session = Session(LoadedProgram(bundle), threads=threads)
        self._sequence = self._session.create_sequence()

    def close(self) -> None:
        """Free the session and what it runs on."""
        self._session.close()

    def __call__(self, token_ids: Sequence[int], layers: Sequence[int]) -> torch.Tensor:
        """float32."""
        session, sequence = self._session, self._sequence
        kept = []
        for start in range(0, len(token_ids), session.config.max_rows):
            staged = session.stage(sequence, token_ids[start : start + session.config.max_rows])
            result = session.forward([(sequence, row) for row in staged], logits=(), taps=sorted(set(layers)))
            kept.append(np.stack([result.taps[layer] for layer in layers], axis=1))
            session.commit(sequence, staged)
        session.rewind(sequence, 0)
        return torch.from_numpy(np.concatenate(kept))


class TorchStates:
    """The float model's states, on the device where its weights are."""

    def __init__(self, model: Decoder) -> None:
        self._model = model

    def __call__(self, token_ids: Sequence[int], layers: Sequence[int]) -> torch.Tensor:
        """In the model's dtype, on its device."""
        model = self._model
        ids = torch.tensor(token_ids, device=model.embed.weight.device)
        positions = torch.arange(len(token_ids), device=ids.device)
        mask = positions[:, None] >= positions[None, :]
        hidden = model.embed(ids)
        after: list[torch.Tensor] = []
        empty = hidden.new_empty((model.config.kv_heads, 0, model.config.head_dim))
        for layer, seen in zip(model.layers, layer_masks(model.config, positions, mask), strict=True):
            hidden, _, _ = layer.attention(hidden, positions, seen, empty, empty)
            hidden = layer.feed_forward(hidden)
            after.append(hidden)
        return torch.stack([after[layer] for layer in layers], dim=1)
