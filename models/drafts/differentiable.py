"""A layer's attention as torch can differentiate it: torch's ONNX operators, which the modules are written with, have
no gradients. The numbers are the same but for the order of sums.
"""

from collections.abc import Sequence

import torch

from forerun.models.drafts.network import DraftLayer
from forerun.models.llama import Attention, KeyValue, RMSNorm


def run_layer(
    layer: DraftLayer,
    hidden: torch.Tensor,
    positions: torch.Tensor,
    lengths: Sequence[int],
    past: Sequence[KeyValue] = (),
) -> tuple[torch.Tensor, KeyValue | None]:
    """hidden [M, D] and positions int64 [M] of whole conversations, which have `lengths` rows; `past` are the keys and
    values [K, M, d] of earlier passes over the same rows. A row sees itself, of the first pass the rows of its
    conversation up to its own, and of every other pass its own.

    Returns hidden [M, D] and this pass's keys and values; None from a layer without attention.
    """
    present = None
    if layer.attention is not None:
        hidden, present = _attend(layer.attention, hidden, positions, lengths, past)
    if layer.feed_forward is not None:
        hidden = layer.feed_forward(hidden)
    return hidden, present


def _attend(
    attention: Attention,
    hidden: torch.Tensor,
    positions: torch.Tensor,
    lengths: Sequence[int],
    past: Sequence[KeyValue],
) -> tuple[torch.Tensor, KeyValue]:
    x = attention.norm(hidden)
    query = _split_heads(attention, attention.q_proj(x), attention.heads, attention.q_norm)
    key = _split_heads(attention, attention.k_proj(x), attention.kv_heads, attention.k_norm)
    value = _split_heads(attention, attention.v_proj(x), attention.kv_heads, None)
    query, key = _rotate(attention, query, positions), _rotate(attention, key, positions)
    own_keys, own_values = [one[0] for one in past[1:]], [one[1] for one in past[1:]]
    first_key, first_value = past[0] if past else (key, value)
    if past:
        own_keys.append(key)
        own_values.append(value)
    attended = []
    start = 0
    # One conversation at a time: together, most pairs of rows would be of two that do not see each other.
    for length in lengths:
        rows = slice(start, start + length)
        start += length
        attended.append(
            _attended(
                query[:, rows],
                first_key[:, rows],
                first_value[:, rows],
                [one[:, rows] for one in own_keys],
                [one[:, rows] for one in own_values],
                attention.scale,
            )
        )
    joined = torch.cat(attended, dim=1).transpose(0, 1).reshape(len(hidden), -1)
    return hidden + attention.o_proj(joined), (key, value)


def _attended(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    own_keys: Sequence[torch.Tensor],
    own_values: Sequence[torch.Tensor],
    scale: float,
) -> torch.Tensor:
    """query [H, L, d], key and value [K, L, d], of which a row sees those up to its own, and more of them of which it
    sees its own alone → [H, L, d].
    """
    heads, length, size = query.shape
    kv_heads = key.shape[0]
    grouped = query.reshape(kv_heads, -1, size) * scale  # [K, H / K · L, d]
    future = torch.ones(length, length, dtype=torch.bool, device=query.device).triu(1)
    scores = (grouped @ key.transpose(1, 2)).float().view(heads, length, length)
    scores = scores.masked_fill(future, -torch.inf)
    by_group = grouped.view(kv_heads, -1, length, size)
    own = [(by_group * one[:, None]).sum(dim=-1).float().view(heads, length, 1) for one in own_keys]
    weights = torch.cat([scores, *own], dim=-1).softmax(dim=-1).to(value.dtype)
    seen = weights[..., :length].reshape(kv_heads, -1, length) @ value
    result = seen.view(kv_heads, -1, length, size)
    for place, one in enumerate(own_values):
        result = result + weights[..., length + place].view(kv_heads, -1, length, 1) * one[:, None]
    return result.reshape(heads, length, size)


def _split_heads(attention: Attention, x: torch.Tensor, heads: int, norm: RMSNorm | None) -> torch.Tensor:
    """[M, heads · d] → [heads, M, d], normalized per head where the model does so."""
    split = x.reshape(-1, heads, attention.head_dim)
    return (split if norm is None else norm(split)).transpose(0, 1)


def _rotate(attention: Attention, x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Rotary embedding of [heads, M, d], first half against second half, where the layer has one."""
    if attention.rope is None:
        return x
    cos, sin = attention.rope.cos[positions], attention.rope.sin[positions]
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)
