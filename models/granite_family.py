"""How files of Granite write their configuration; their tensors are named as Llama's."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from forerun.errors import UnsupportedModelError
from forerun.models.config import ModelConfig
from forerun.models.llama_family import LlamaFamily


class GraniteFamily(LlamaFamily):
    """Granite (dense): Llama with factors of embeddings, scores, what sublayers add, and logits."""

    name = "granite"
    huggingface_types: tuple[str, ...] = ("granite",)
    gguf_architectures: tuple[str, ...] = ("granite",)
    gguf_interleaved: tuple[str, ...] = ("granite",)

    def config_from_huggingface(self, values: Mapping[str, Any]) -> ModelConfig:
        """Read a config.json."""
        return _with_factors(
            super().config_from_huggingface(values),
            embedding=float(values.get("embedding_multiplier", 1.0)),
            scores=float(values.get("attention_multiplier", 1.0)),
            residual=float(values.get("residual_multiplier", 1.0)),
            logits=float(values.get("logits_scaling", 1.0)),
        )

    def config_from_gguf(
        self,
        values: Mapping[str, Any],
        shapes: Mapping[str, tuple[int, ...]],
        rope_divisors: tuple[float, ...] | None,
    ) -> ModelConfig:
        """Read GGUF metadata."""
        if not values.get("granite.rope.scaling.finetuned", True):
            raise UnsupportedModelError(
                "Granite without rotary embedding (rope.scaling.finetuned false) is not supported"
            )
        scores = values.get("granite.attention.scale")
        return _with_factors(
            super().config_from_gguf(values, shapes, rope_divisors),
            embedding=float(values.get("granite.embedding_scale", 1.0)),
            scores=None if scores is None else float(scores),
            residual=float(values.get("granite.residual_scale", 1.0)),
            logits=float(values.get("granite.logit_scale", 1.0)),
        )


def _with_factors(
    config: ModelConfig, embedding: float, scores: float | None, residual: float, logits: float
) -> ModelConfig:
    """The network in which sublayers add what they compute as it is.

    Its residual stream is that of Granite divided by `residual`: so are the embeddings, and as every sublayer begins
    with a norm, which takes the size of its rows away, the rest stays as it is but for the norms' epsilon.
    """
    for name, factor in (("embedding", embedding), ("residual", residual), ("logits", logits)):
        if not factor > 0:
            raise UnsupportedModelError(f"Granite's factor of {name} is {factor}; it must be positive")
    return replace(
        config,
        embedding_scale=embedding / residual,
        norm_epsilon=config.norm_epsilon / residual**2,
        attention_scale=scores,
        logit_scale=1.0 / logits,
    )
