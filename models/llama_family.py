"""How files of the Llama family name their tensors and write their configuration."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch

from forerun.errors import UnsupportedModelError
from forerun.models.checkpoint import RowRange
from forerun.models.config import ModelConfig
from forerun.models.llama import Decoder
from forerun.models.rope import SUPPORTED_SCALINGS, scaling_divisors

_GGUF_PARTS = {
    "attention.norm": "attn_norm",
    "attention.q_proj": "attn_q",
    "attention.k_proj": "attn_k",
    "attention.v_proj": "attn_v",
    "attention.o_proj": "attn_output",
    "attention.q_norm": "attn_q_norm",
    "attention.k_norm": "attn_k_norm",
    "feed_forward.norm": "ffn_norm",
    "feed_forward.gate_proj": "ffn_gate",
    "feed_forward.up_proj": "ffn_up",
    "feed_forward.down_proj": "ffn_down",
}
_HUGGINGFACE_PARTS = {
    "attention.norm": "input_layernorm",
    "feed_forward.norm": "post_attention_layernorm",
    "attention.": "self_attn.",
    "feed_forward.": "mlp.",
}
# Logits bounded by tanh, under the names of config.json and, with the architecture before them, of GGUF files.
_SOFTCAPS = ("attn_logit_softcapping", "final_logit_softcapping")


class LlamaFamily:
    """Llama, Mistral, Qwen2 and Qwen3: one network, different configuration.

    `huggingface_parts` and `gguf_parts` translate parts of our names; `norm_offset` is what norm weights in Hugging
    Face checkpoints lack; `gguf_interleaved` names the architectures whose q and k rows llama.cpp's converter reorders.
    """

    name = "llama"
    huggingface_types: tuple[str, ...] = ("llama", "mistral", "qwen2", "qwen3")
    gguf_architectures: tuple[str, ...] = ("llama", "qwen2", "qwen3")
    huggingface_parts: Mapping[str, str] = MappingProxyType(_HUGGINGFACE_PARTS)
    gguf_parts: Mapping[str, str] = MappingProxyType(_GGUF_PARTS)
    norm_offset = 0.0
    gguf_interleaved: tuple[str, ...] = ("llama",)

    def build(self, config: ModelConfig) -> Decoder:
        """The network with uninitialised weights."""
        return Decoder(config)

    def tensor_shapes(self, config: ModelConfig) -> dict[str, tuple[int, ...]]:
        """Name and shape of every weight the network has; a tied head is not listed."""
        with torch.device("meta"):
            return {name: tuple(weight.shape) for name, weight in Decoder(config).named_parameters()}

    def huggingface_name(self, name: str) -> str:
        """The name of one of our weights in a Hugging Face checkpoint."""
        fixed = {
            "embed.weight": "model.embed_tokens.weight",
            "head.weight": "lm_head.weight",
            "head.norm.weight": "model.norm.weight",
        }
        if name in fixed:
            return fixed[name]
        for ours, theirs in self.huggingface_parts.items():
            name = name.replace(ours, theirs)
        return f"model.{name}"

    def gguf_name(self, name: str) -> str:
        """The name of one of our weights in a GGUF file."""
        fixed = {
            "embed.weight": "token_embd.weight",
            "head.weight": "output.weight",
            "head.norm.weight": "output_norm.weight",
        }
        if name in fixed:
            return fixed[name]
        _, layer, *middle, kind = name.split(".")
        return f"blk.{layer}.{self.gguf_parts['.'.join(middle)]}.{kind}"

    def rows_in_file(self, name: str, config: ModelConfig) -> RowRange | None:
        """Where a weight lies in a tensor that files join of several; here each has its own."""
        return None

    def gguf_interleaved_heads(self, architecture: str, name: str, config: ModelConfig) -> int | None:
        """The head count by which a GGUF file interleaved the rows of a weight, None where it did not.

        llama.cpp's converter reorders the q and k rows of some architectures from half-split to interleaved rotary
        order.
        """
        counts = {"q_proj": config.heads, "k_proj": config.kv_heads}
        return counts.get(name.split(".")[-2]) if architecture in self.gguf_interleaved else None

    def config_from_huggingface(self, values: Mapping[str, Any]) -> ModelConfig:
        """Read a config.json; raises `UnsupportedModelError` for what this family cannot do, `KeyError` if
        incomplete.
        """
        model_type = values["model_type"]
        self._refuse_huggingface(values)
        heads = int(values["num_attention_heads"])
        head_dim = int(values.get("head_dim") or values["hidden_size"] // heads)
        rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
        theta = float(rope.get("rope_theta", values.get("rope_theta", 10000.0)))
        biased = bool(values.get("attention_bias", False))
        context = int(values["max_position_embeddings"])
        return ModelConfig(
            layers=int(values["num_hidden_layers"]),
            hidden_size=int(values["hidden_size"]),
            heads=heads,
            kv_heads=int(values.get("num_key_value_heads") or heads),
            head_dim=head_dim,
            feed_forward_size=int(values["intermediate_size"]),
            vocabulary_size=int(values["vocab_size"]),
            context_length=context,
            rope_theta=theta,
            norm_epsilon=float(values["rms_norm_eps"]),
            tied_embeddings=bool(values.get("tie_word_embeddings", False)),
            attention_bias=biased or model_type == "qwen2",
            output_bias=biased and model_type != "qwen2",
            qk_norm=model_type == "qwen3",
            **_window(values),
            rope_divisors=scaling_divisors(
                {"original_max_position_embeddings": context, **rope}, theta, head_dim
            ),
        )

    def _refuse_huggingface(self, values: Mapping[str, Any]) -> None:
        """Name the first setting that would make the network another one than ours."""
        activation = values.get("hidden_act", "silu")
        if activation not in ("silu", "swish"):
            raise UnsupportedModelError(f"activation {activation!r} is not supported; supported: silu")
        if values.get("mlp_bias"):
            raise UnsupportedModelError("bias in the feed-forward layers (mlp_bias) is not supported")
        rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
        if values.get("partial_rotary_factor", rope.get("partial_rotary_factor", 1.0)) != 1.0:
            raise UnsupportedModelError("rotary embedding of a part of each head is not supported")
        for name in ("num_local_experts", "num_experts"):
            if values.get(name):
                raise UnsupportedModelError(
                    f"mixture-of-experts models ({name} {values[name]}) are not supported"
                )
        for name in _SOFTCAPS:
            if values.get(name):
                raise UnsupportedModelError(f"{name} {values[name]} is not supported")
        method = (values.get("quantization_config") or {}).get("quant_method")
        if method:
            raise UnsupportedModelError(
                f"safetensors quantized with {method!r} are not supported; "
                "use the float checkpoint or a GGUF file"
            )

    def config_from_gguf(
        self,
        values: Mapping[str, Any],
        shapes: Mapping[str, tuple[int, ...]],
        rope_divisors: tuple[float, ...] | None,
    ) -> ModelConfig:
        """Read GGUF metadata; `shapes` are the file's tensors, `rope_divisors` its rope_freqs tensor if any.

        Raises `UnsupportedModelError` for what this family cannot do and `KeyError` if a key is missing.
        """
        architecture = values["general.architecture"]

        def read(key: str, default: Any = None) -> Any:
            found = values.get(f"{architecture}.{key}", default)
            if found is None:
                raise KeyError(f"{architecture}.{key}")
            return found

        hidden, heads = int(read("embedding_length")), int(read("attention.head_count"))
        head_dim = int(read("attention.key_length", hidden // heads))
        if int(read("rope.dimension_count", head_dim)) != head_dim:
            raise UnsupportedModelError("rotary embedding of a part of each head is not supported")
        if int(read("expert_count", 0)):
            raise UnsupportedModelError("mixture-of-experts models are not supported")
        for name in _SOFTCAPS:
            if float(read(name, 0.0)):
                raise UnsupportedModelError(f"{architecture}.{name} {read(name)} is not supported")
        return ModelConfig(
            layers=int(read("block_count")),
            hidden_size=hidden,
            heads=heads,
            kv_heads=int(read("attention.head_count_kv", heads)),
            head_dim=head_dim,
            feed_forward_size=int(read("feed_forward_length")),
            vocabulary_size=shapes["token_embd.weight"][0],
            context_length=int(read("context_length")),
            rope_theta=float(read("rope.freq_base", 10000.0)),
            norm_epsilon=float(read("attention.layer_norm_rms_epsilon")),
            tied_embeddings="output.weight" not in shapes,
            attention_bias="blk.0.attn_q.bias" in shapes,
            output_bias="blk.0.attn_output.bias" in shapes,
            qk_norm="blk.0.attn_q_norm.weight" in shapes,
            rope_divisors=rope_divisors or _gguf_divisors(values, architecture, head_dim),
        )


def _window(values: Mapping[str, Any]) -> dict[str, Any]:
    """The window of a config.json and the layers that have it; of Mistral and Phi-3 all have, of Qwen2 the last ones.

    A window that no position reaches past is none.
    """
    window, layers = values.get("sliding_window"), int(values["num_hidden_layers"])
    everywhere = values["model_type"] in ("mistral", "phi3")
    if not window or not values.get("use_sliding_window", everywhere):
        return {}
    if int(window) >= int(values["max_position_embeddings"]):
        return {}
    kinds = values.get("layer_types")
    if kinds is None:
        first = 0 if everywhere else int(values.get("max_window_layers", layers))
        kinds = ["full_attention"] * first + ["sliding_attention"] * (layers - first)
    windowed = tuple(layer for layer, kind in enumerate(kinds) if kind == "sliding_attention")
    return {"window": int(window), "windowed_layers": windowed} if windowed else {}


def all_but_every(layers: int, interval: int) -> list[bool]:
    """For each layer, False where it is the last of `interval`."""
    return [bool((layer + 1) % interval) for layer in range(layers)]


def _gguf_divisors(values: Mapping[str, Any], architecture: str, head_dim: int) -> tuple[float, ...] | None:
    """Divisors of `rope.scaling.*`; the older `rope.scale_linear` means the same as linear."""
    old = values.get(f"{architecture}.rope.scale_linear")
    kind = values.get(f"{architecture}.rope.scaling.type", "linear" if old else "none")
    if kind == "none":
        return None
    if kind != "linear":
        known = ", ".join(SUPPORTED_SCALINGS)
        raise UnsupportedModelError(f"rope scaling {kind!r} is not supported; supported: {known}")
    factor = float(values.get(f"{architecture}.rope.scaling.factor", old or 1.0))
    return (factor,) * (head_dim // 2) if factor != 1.0 else None
