"""How files of Phi-3 name their tensors and write their configuration."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from forerun.errors import UnsupportedModelError
from forerun.models.checkpoint import RowRange
from forerun.models.config import ModelConfig
from forerun.models.llama_family import LlamaFamily

_HUGGINGFACE_PARTS = {
    "attention.q_proj": "attention.qkv_proj",
    "attention.k_proj": "attention.qkv_proj",
    "attention.v_proj": "attention.qkv_proj",
    "feed_forward.gate_proj": "feed_forward.gate_up_proj",
    "feed_forward.up_proj": "feed_forward.gate_up_proj",
    **LlamaFamily.huggingface_parts,
}
_GGUF_PARTS = {
    "attention.q_proj": "attn_qkv",
    "attention.k_proj": "attn_qkv",
    "attention.v_proj": "attn_qkv",
    "feed_forward.gate_proj": "ffn_up",
    "feed_forward.up_proj": "ffn_up",
}


class Phi3Family(LlamaFamily):
    """Phi-3: q, k and v in one stored matrix, gate and up in another; a window in every layer of some models."""

    name = "phi3"
    huggingface_types: tuple[str, ...] = ("phi3",)
    gguf_architectures: tuple[str, ...] = ("phi3",)
    huggingface_parts: Mapping[str, str] = MappingProxyType(_HUGGINGFACE_PARTS)
    gguf_parts: Mapping[str, str] = MappingProxyType({**LlamaFamily.gguf_parts, **_GGUF_PARTS})

    def rows_in_file(self, name: str, config: ModelConfig) -> RowRange | None:
        """q above k above v, and gate above up."""
        queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
        joined = {
            ("q_proj", "k_proj", "v_proj"): (queries, keys, keys),
            ("gate_proj", "up_proj"): (config.feed_forward_size,) * 2,
        }
        kind = name.split(".")[-2]
        for kinds, sizes in joined.items():
            if kind in kinds:
                start = sum(sizes[: kinds.index(kind)])
                return RowRange(start, start + sizes[kinds.index(kind)], sum(sizes))
        return None

    def config_from_gguf(
        self,
        values: Mapping[str, Any],
        shapes: Mapping[str, tuple[int, ...]],
        rope_divisors: tuple[float, ...] | None,
    ) -> ModelConfig:
        """Read GGUF metadata."""
        if "rope_factors_long.weight" in shapes:
            raise UnsupportedModelError(
                "rope scaling 'longrope' (tensor rope_factors_long.weight) is not supported; "
                "the 4k models of Phi-3 do without"
            )
        config = super().config_from_gguf(values, shapes, rope_divisors)
        window = int(values.get("phi3.attention.sliding_window", 0))
        if not 0 < window < config.context_length:
            return config
        return replace(config, window=window, windowed_layers=tuple(range(config.layers)))
