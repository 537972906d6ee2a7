"""How files of Gemma 3 (text) name their tensors and write their configuration."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from forerun.errors import UnsupportedModelError
from forerun.models.config import ModelConfig
from forerun.models.llama_family import LlamaFamily, all_but_every
from forerun.models.rope import scaling_divisors

_GGUF_PARTS = {
    "attention.post_norm": "post_attention_norm",
    "feed_forward.post_norm": "post_ffw_norm",
}
_HUGGINGFACE_PARTS = {
    "attention.norm": "input_layernorm",
    "attention.post_norm": "post_attention_layernorm",
    "feed_forward.norm": "pre_feedforward_layernorm",
    "feed_forward.post_norm": "post_feedforward_layernorm",
    "attention.": "self_attn.",
    "feed_forward.": "mlp.",
}
# Of so many layers all but the last have a window, where a file does not list them.
_PATTERN = 6
_WINDOW_THETA = 10000.0


class Gemma3Family(LlamaFamily):
    """Gemma 3: windows in most layers, norms before and after each sublayer, GeGLU, scaled embeddings."""

    name = "gemma3"
    huggingface_types: tuple[str, ...] = ("gemma3_text",)
    gguf_architectures: tuple[str, ...] = ("gemma3",)
    huggingface_parts: Mapping[str, str] = MappingProxyType(_HUGGINGFACE_PARTS)
    gguf_parts: Mapping[str, str] = MappingProxyType({**LlamaFamily.gguf_parts, **_GGUF_PARTS})
    norm_offset = 1.0

    def config_from_huggingface(self, values: Mapping[str, Any]) -> ModelConfig:
        """Read a config.json, with the rotary bases as transformers 4 or 5 writes them."""
        if values.get("use_bidirectional_attention"):
            raise UnsupportedModelError("use_bidirectional_attention is not supported")
        layers = int(values["num_hidden_layers"])
        pattern = int(values.get("sliding_window_pattern") or values.get("_sliding_window_pattern", _PATTERN))
        kinds = values.get("layer_types")
        windowed = kinds and [kind == "sliding_attention" for kind in kinds]
        ropes = values.get("rope_parameters") or {}
        full = ropes.get("full_attention", values.get("rope_scaling") or {})
        near = ropes.get("sliding_attention", {})
        theta = float(full.get("rope_theta", values.get("rope_theta", 1e6)))
        common = {
            "tie_word_embeddings": True,
            **{key: value for key, value in values.items() if key not in ("rope_parameters", "rope_scaling")},
            # Read here, each in a way of its own.
            **{"hidden_act": "silu", "rope_theta": theta, "sliding_window": None},
        }
        config = super().config_from_huggingface(common)
        return replace(
            _gemma(config, int(values["sliding_window"]), windowed or all_but_every(layers, pattern)),
            qk_norm=True,
            activation=_activation(values),
            attention_scale=float(values["query_pre_attn_scalar"]) ** -0.5,
            rope_theta=theta,
            rope_divisors=scaling_divisors(full, theta, config.head_dim),
            window_rope_theta=float(
                near.get("rope_theta", values.get("rope_local_base_freq", _WINDOW_THETA))
            ),
        )

    def config_from_gguf(
        self,
        values: Mapping[str, Any],
        shapes: Mapping[str, tuple[int, ...]],
        rope_divisors: tuple[float, ...] | None,
    ) -> ModelConfig:
        """Read GGUF metadata; what Gemma 3 models have in common is not in it."""
        config = super().config_from_gguf(values, shapes, rope_divisors)
        window = int(values["gemma3.attention.sliding_window"])
        # The 27B model alone scales by its hidden size per head; llama.cpp tells it by its number of layers.
        per_head = config.hidden_size / config.heads if config.layers == 62 else config.head_dim
        return replace(
            _gemma(config, window, all_but_every(config.layers, _PATTERN)),
            attention_scale=per_head**-0.5,
            window_rope_theta=float(values.get("gemma3.rope.freq_base_swa", _WINDOW_THETA)),
        )


def _gemma(config: ModelConfig, window: int, windowed: list[bool]) -> ModelConfig:
    """What all of Gemma 3 share."""
    return replace(
        config,
        activation="gelu_tanh",
        post_norms=True,
        embedding_scale=config.hidden_size**0.5,
        window=window,
        windowed_layers=tuple(layer for layer, inside in enumerate(windowed) if inside),
    )


def _activation(values: Mapping[str, Any]) -> str:
    given = values.get("hidden_activation") or values.get("hidden_act", "gelu_pytorch_tanh")
    if given != "gelu_pytorch_tanh":
        raise UnsupportedModelError(
            f"activation {given!r} is not supported for Gemma 3; supported: gelu_pytorch_tanh"
        )
    return "gelu_tanh"
