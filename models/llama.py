"""The Llama family as plain torch modules, cut where the runtime cuts: Embed, Attention, FeedForward, Head.

All families differ only in what `ModelConfig` says (biases, q/k norm, norms after a sublayer, windows, layers
without rotary embedding, tying). Each sublayer includes its norms and its residual add, so leaving a sublayer out is
not calling it.
Legend: M rows, P past, T = P + M, D hidden, H heads, K kv heads, d head_dim, F feed-forward, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from forerun.models.config import ModelConfig
from forerun.models.rope import rotary_tables

KeyValue = tuple[torch.Tensor, torch.Tensor]


class RMSNorm(nn.Module):
    """Root-mean-square normalization of the last dimension (Zhang and Sennrich 2019)."""

    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.empty(size), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [..., size] → the same shape."""
        return nn.functional.rms_norm(x, self.weight.shape, self.weight, self.epsilon)


class Linear(nn.Module):
    """`x · Wᵀ (+ bias)`, written with a transpose so that it exports as Transpose + MatMul, W being [N,
    K].
    """

    def __init__(self, inputs: int, outputs: int, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs), requires_grad=False)
        self.bias = nn.Parameter(torch.empty(outputs), requires_grad=False) if bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [M, K] → [M, N]."""
        product = torch.matmul(x, self.weight.t())
        return product if self.bias is None else product + self.bias


class Rope(nn.Module):
    """The rotary tables, shared by all layers: `cos` and `sin`, float32 [context_length, d/2]."""

    cos: torch.Tensor
    sin: torch.Tensor

    def __init__(self, config: ModelConfig, windowed: bool = False) -> None:
        super().__init__()
        cos, sin = rotary_tables(config, windowed)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Rotate float32 [1, heads, M, d] by positions int64 [1, M], first half against second half."""
        return torch.onnx.ops.rotary_embedding(x, self.cos, self.sin, positions)


class Embed(nn.Module):
    """Token ids to hidden rows."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.scale = config.embedding_scale
        self.weight = nn.Parameter(
            torch.empty(config.vocabulary_size, config.hidden_size), requires_grad=False
        )

    def forward(self, token_ids: torch.Tensor) -> torch.Tensor:
        """int64 [M] → float32 [M, D]."""
        rows = nn.functional.embedding(token_ids, self.weight)
        return rows if self.scale == 1.0 else rows * self.scale


class Attention(nn.Module):
    """Pre-norm, grouped-query attention over past and present rows, output projection, residual add.

    Where the layer has a window, the mask given is that of the window; without a `rope` nothing is rotated.
    """

    def __init__(self, config: ModelConfig, rope: Rope | None) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = config.heads, config.kv_heads, config.head_dim
        self.scale = config.head_dim**-0.5 if config.attention_scale is None else config.attention_scale
        query_size, kv_size = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.norm = RMSNorm(config.hidden_size, config.norm_epsilon)
        self.q_proj = Linear(config.hidden_size, query_size, config.attention_bias)
        self.k_proj = Linear(config.hidden_size, kv_size, config.attention_bias)
        self.v_proj = Linear(config.hidden_size, kv_size, config.attention_bias)
        self.o_proj = Linear(query_size, config.hidden_size, config.output_bias)
        self.q_norm = RMSNorm(config.head_dim, config.norm_epsilon) if config.qk_norm else None
        self.k_norm = RMSNorm(config.head_dim, config.norm_epsilon) if config.qk_norm else None
        self.post_norm = RMSNorm(config.hidden_size, config.norm_epsilon) if config.post_norms else None
        self.rope = rope

    def forward(
        self,
        hidden: torch.Tensor,
        positions: torch.Tensor,
        tree_mask: torch.Tensor,
        past_key: torch.Tensor,
        past_value: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """hidden [M, D], positions int64 [M], tree_mask bool [M, T] (True = may see), past [K, P, d] each.

        Returns hidden [M, D] and the keys and values of past and present rows, [K, T, d] each, all float32.
        """
        x = self.norm(hidden)
        query = self._split_heads(self.q_proj(x), self.heads, self.q_norm)
        key = self._split_heads(self.k_proj(x), self.kv_heads, self.k_norm)
        value = self._split_heads(self.v_proj(x), self.kv_heads, None)
        attended, present_key, present_value, _ = torch.onnx.ops.attention(
            self._rotate(query, positions),
            self._rotate(key, positions),
            value,
            tree_mask,
            past_key.unsqueeze(0),
            past_value.unsqueeze(0),
            scale=self.scale,
        )
        joined = attended.transpose(1, 2).reshape(-1, self.heads * self.head_dim)
        added = _normed(self.post_norm, self.o_proj(joined))
        return hidden + added, present_key.squeeze(0), present_value.squeeze(0)

    def _rotate(self, heads: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """[1, heads, M, d] by positions [M], where the layer rotates."""
        return heads if self.rope is None else self.rope(heads, positions.unsqueeze(0))

    def _split_heads(self, x: torch.Tensor, heads: int, norm: RMSNorm | None) -> torch.Tensor:
        """[M, heads · d] → [1, heads, M, d], normalized per head where the model does so."""
        split = x.reshape(1, -1, heads, self.head_dim)
        return (split if norm is None else norm(split)).transpose(1, 2)


def _normed(norm: RMSNorm | None, x: torch.Tensor) -> torch.Tensor:
    return x if norm is None else norm(x)


class FeedForward(nn.Module):
    """Pre-norm, SwiGLU or GeGLU (Shazeer 2020), residual add."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm = RMSNorm(config.hidden_size, config.norm_epsilon)
        self.gate_proj = Linear(config.hidden_size, config.feed_forward_size)
        self.up_proj = Linear(config.hidden_size, config.feed_forward_size)
        self.down_proj = Linear(config.feed_forward_size, config.hidden_size)
        self.post_norm = RMSNorm(config.hidden_size, config.norm_epsilon) if config.post_norms else None
        self.activation = config.activation

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """float32 [M, D] → [M, D]."""
        x = self.norm(hidden)
        gated = activate(self.activation, self.gate_proj(x)) * self.up_proj(x)
        return hidden + _normed(self.post_norm, self.down_proj(gated))


def activate(name: str, x: torch.Tensor) -> torch.Tensor:
    """One of `ACTIVATIONS`, element by element."""
    return nn.functional.silu(x) if name == "silu" else nn.functional.gelu(x, approximate="tanh")


class Head(nn.Module):
    """Final norm and projection to the vocabulary."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm = RMSNorm(config.hidden_size, config.norm_epsilon)
        self.weight = nn.Parameter(
            torch.empty(config.vocabulary_size, config.hidden_size), requires_grad=False
        )

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """float32 [M, D] → logits [M, V]."""
        return torch.matmul(self.norm(hidden), self.weight.t())


class Layer(nn.Module):
    """One attention and one feed-forward sublayer."""

    def __init__(self, config: ModelConfig, rope: Rope | None) -> None:
        super().__init__()
        self.attention = Attention(config, rope)
        self.feed_forward = FeedForward(config)


def layer_ropes(config: ModelConfig) -> list[Rope | None]:
    """The rotary tables of each layer: the same object where they are the same, None where nothing rotates."""
    common = Rope(config)
    apart = config.windowed_layers and config.window_rope_theta is not None
    windowed = Rope(config, windowed=True) if apart else common
    ropes = [windowed if layer in config.windowed_layers else common for layer in range(config.layers)]
    return [None if layer in config.unrotated_layers else rope for layer, rope in enumerate(ropes)]


@dataclass(frozen=True)
class DecoderOutput:
    """logits [M, V]; taps: hidden [M, D] after each layer; present: (key, value) [K, T, d] of each layer."""

    logits: torch.Tensor
    taps: tuple[torch.Tensor, ...]
    present: tuple[KeyValue, ...]


class Decoder(nn.Module):
    """embed → (attention, feed_forward) × L → head: the eager definition of a model of this family."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = Embed(config)
        self.layers = nn.ModuleList(Layer(config, rope) for rope in layer_ropes(config))
        self.head = Head(config)
        if config.tied_embeddings:
            self.head.weight = self.embed.weight

    def forward(
        self,
        token_ids: torch.Tensor,
        positions: torch.Tensor | None = None,
        tree_mask: torch.Tensor | None = None,
        past: Sequence[KeyValue] | None = None,
    ) -> DecoderOutput:
        """token_ids int64 [M], positions int64 [M], tree_mask bool [M, P + M] (True = may see).

        `past` is the `present` of an earlier call, None for an empty cache. Without positions and tree_mask
        the rows are a chain that continues the past.
        """
        return run_layers(self, self.config, self.embed(token_ids), positions, tree_mask, past)


def run_layers(
    network: Any,
    config: ModelConfig,
    hidden: torch.Tensor,
    positions: torch.Tensor | None = None,
    tree_mask: torch.Tensor | None = None,
    past: Sequence[KeyValue] | None = None,
) -> DecoderOutput:
    """Rows [M, D] through a network's `layers` and `head`; further arguments as for `Decoder`.

    A sublayer that is None is left out. Layers without attention leave their (empty) cache as it is.
    """
    if past is None:
        empty = hidden.new_empty((config.kv_heads, 0, config.head_dim))
        past = ((empty, empty),) * config.layers
    past_rows, rows = past[0][0].shape[1], len(hidden)
    positions = torch.arange(past_rows, past_rows + rows) if positions is None else positions
    tree_mask = chain_mask(rows, past_rows) if tree_mask is None else tree_mask
    masks = layer_masks(config, positions, tree_mask)
    taps, present = [], []
    for layer, mask, given in zip(network.layers, masks, past, strict=True):
        key, value = given
        if layer.attention is not None:
            hidden, key, value = layer.attention(hidden, positions, mask, key, value)
        if layer.feed_forward is not None:
            hidden = layer.feed_forward(hidden)
        taps.append(hidden)
        present.append((key, value))
    return DecoderOutput(network.head(hidden), tuple(taps), tuple(present))


def layer_masks(config: ModelConfig, positions: torch.Tensor, tree_mask: torch.Tensor) -> list[torch.Tensor]:
    """What rows see in each layer: `tree_mask` bool [M, P + M], with a window the last `window` positions of it."""
    masks = [tree_mask] * config.layers
    if config.windowed_layers:
        assert config.window is not None
        past = torch.arange(tree_mask.shape[1] - len(positions), device=positions.device)
        near = torch.cat([past, positions])[None, :] > positions[:, None] - config.window
        for layer in config.windowed_layers:
            masks[layer] = tree_mask & near
    return masks


def chain_mask(rows: int, past_rows: int) -> torch.Tensor:
    """bool [M, P + M]: every row sees the whole past, itself and the rows before it."""
    return torch.ones(rows, past_rows + rows, dtype=torch.bool).tril(diagonal=past_rows)
