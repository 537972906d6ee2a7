"""A layer's attention as torch can differentiate it: torch's ONNX operators, which the modules are written with, have
no gradients. The numbers are the same but for the order of sums.
"""

import torch
from torch import nn

from forerun.models.drafts.network import DraftLayer
from forerun.models.llama import Attention, KeyValue, RMSNorm


def run_layer(
    layer: DraftLayer,
    hidden: torch.Tensor,
    positions: torch.Tensor,
    mask: torch.Tensor,
    past: KeyValue | None = None,
) -> tuple[torch.Tensor, KeyValue | None]:
    """hidden [M, D], positions int64 [M], mask bool [M, P + M] (True = may see), past [K, P, d] each.

    Returns hidden [M, D] and the keys and values of past and present rows; None from a layer without attention.
    """
    present = None
    if layer.attention is not None:
        hidden, present = _attend(layer.attention, hidden, positions, mask, past)
    if layer.feed_forward is not None:
        hidden = layer.feed_forward(hidden)
    return hidden, present


def _attend(
    attention: Attention,
    hidden: torch.Tensor,
    positions: torch.Tensor,
    mask: torch.Tensor,
    past: KeyValue | None,
) -> tuple[torch.Tensor, KeyValue]:
    x = attention.norm(hidden)
    query = _split_heads(attention, attention.q_proj(x), attention.heads, attention.q_norm)
    key = _split_heads(attention, attention.k_proj(x), attention.kv_heads, attention.k_norm)
    value = _split_heads(attention, attention.v_proj(x), attention.kv_heads, None)
    query, key = _rotate(attention, query, positions), _rotate(attention, key, positions)
    if past is not None:
        key, value = torch.cat([past[0], key], dim=1), torch.cat([past[1], value], dim=1)
    attended = nn.functional.scaled_dot_product_attention(
        query[None], key[None], value[None], mask, scale=attention.head_dim**-0.5, enable_gqa=True
    )
    joined = attended[0].transpose(0, 1).reshape(len(hidden), -1)
    return hidden + attention.o_proj(joined), (key, value)


def _split_heads(attention: Attention, x: torch.Tensor, heads: int, norm: RMSNorm | None) -> torch.Tensor:
    """[M, heads · d] → [heads, M, d], normalized per head where the model does so."""
    split = x.reshape(-1, heads, attention.head_dim)
    return (split if norm is None else norm(split)).transpose(0, 1)


def _rotate(attention: Attention, x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Rotary embedding of [heads, M, d], first half against second half."""
    cos, sin = attention.rope.cos[positions], attention.rope.sin[positions]
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)
