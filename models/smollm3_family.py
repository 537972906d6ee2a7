"""How files of SmolLM3 write their configuration; their tensors are named as Llama's."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from forerun.models.config import ModelConfig
from forerun.models.llama_family import LlamaFamily, all_but_every

# The last of so many layers does not rotate, where a file does not list them.
_INTERVAL = 4
# What transformers leaves out of a config.json.
_DEFAULTS = {"rope_theta": 2000000.0, "tie_word_embeddings": True}


class SmolLM3Family(LlamaFamily):
    """SmolLM3: every fourth layer goes without rotary embedding (Yang et al. 2025, "Rope to Nope and Back Again")."""

    name = "smollm3"
    huggingface_types: tuple[str, ...] = ("smollm3",)
    gguf_architectures: tuple[str, ...] = ("smollm3",)
    gguf_interleaved: tuple[str, ...] = ("smollm3",)

    def config_from_huggingface(self, values: Mapping[str, Any]) -> ModelConfig:
        """Read a config.json, in whose `no_rope_layers` a 0 stands for a layer that does not rotate."""
        layers = int(values["num_hidden_layers"])
        rotated = values.get("no_rope_layers")
        if rotated is None:
            rotated = all_but_every(layers, int(values.get("no_rope_layer_interval", _INTERVAL)))
        if len(rotated) < layers:
            raise ValueError(f"no_rope_layers has {len(rotated)} numbers for {layers} layers")
        unrotated = tuple(layer for layer in range(layers) if not rotated[layer])
        # With windows it is those layers that have them.
        kinds = ["sliding_attention" if layer in unrotated else "full_attention" for layer in range(layers)]
        common = {**_DEFAULTS, **values, "layer_types": values.get("layer_types") or kinds}
        return replace(super().config_from_huggingface(common), unrotated_layers=unrotated)

    def config_from_gguf(
        self,
        values: Mapping[str, Any],
        shapes: Mapping[str, tuple[int, ...]],
        rope_divisors: tuple[float, ...] | None,
    ) -> ModelConfig:
        """Read GGUF metadata; which layers do not rotate is not in it."""
        config = super().config_from_gguf(values, shapes, rope_divisors)
        rotated = all_but_every(config.layers, _INTERVAL)
        return replace(
            config, unrotated_layers=tuple(layer for layer in range(config.layers) if not rotated[layer])
        )
