"""The numbers that define one decoder network, whatever file they came from."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from forerun.errors import UnsupportedModelError

# Of a gated feed-forward sublayer: torch's names, `gelu_tanh` being gelu's approximation by tanh.
ACTIVATIONS = ("silu", "gelu_tanh")


@dataclass(frozen=True)
class ModelConfig:
    """Shape and constants of a decoder.

    `rope_divisors` holds one divisor per rotary frequency (d/2 of them) for models that stretch their
    context; None means plain rotary embedding. `attention_bias` is the bias of q, k and v, `output_bias` that
    of o. `post_norms` are norms of what a sublayer adds to the residual stream. `attention_scale` is the factor of
    scores, None for 1/√head_dim. In `windowed_layers` a row sees the last `window` positions, its own included;
    they rotate by `window_rope_theta` where that is not None. In `unrotated_layers` queries and keys are not rotated.
    `logit_scale` is the factor of the logits, which the loader folds into the last norm's weight.
    """

    layers: int
    hidden_size: int
    heads: int
    kv_heads: int
    head_dim: int
    feed_forward_size: int
    vocabulary_size: int
    context_length: int
    rope_theta: float
    norm_epsilon: float
    tied_embeddings: bool
    attention_bias: bool = False
    output_bias: bool = False
    qk_norm: bool = False
    rope_divisors: tuple[float, ...] | None = None
    activation: str = "silu"
    post_norms: bool = False
    embedding_scale: float = 1.0
    attention_scale: float | None = None
    window: int | None = None
    windowed_layers: tuple[int, ...] = ()
    window_rope_theta: float | None = None
    unrotated_layers: tuple[int, ...] = ()
    logit_scale: float = 1.0

    def __post_init__(self) -> None:
        """Refuse shapes that no network can have; raises `UnsupportedModelError`."""
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type in (int, float) and not value > 0:
                raise UnsupportedModelError(f"the model's {field.name} is {value}; it must be positive")
        if self.activation not in ACTIVATIONS:
            raise UnsupportedModelError(
                f"activation {self.activation!r} is not supported; supported: {', '.join(ACTIVATIONS)}"
            )
        if self.windowed_layers and (self.window is None or self.window < 1):
            raise UnsupportedModelError(
                f"the model's window is {self.window}; layers with a window need it positive"
            )
        for what, layers in (
            ("have a window", self.windowed_layers),
            ("do not rotate", self.unrotated_layers),
        ):
            if any(not 0 <= layer < self.layers for layer in layers):
                raise UnsupportedModelError(
                    f"layers {layers} {what}; the model has layers 0 to {self.layers - 1}"
                )
        if self.heads % self.kv_heads:
            raise UnsupportedModelError(
                f"the model has {self.heads} heads and {self.kv_heads} kv heads; "
                "the first must be a multiple of the second"
            )
        if self.head_dim % 2:
            raise UnsupportedModelError(
                f"the model's head_dim is {self.head_dim}; rotary embedding needs it even"
            )
        if self.rope_divisors is not None and len(self.rope_divisors) != self.head_dim // 2:
            raise UnsupportedModelError(
                f"the model gives {len(self.rope_divisors)} rotary frequency factors; "
                f"head_dim {self.head_dim} needs {self.head_dim // 2}"
            )

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "ModelConfig":
        """The configuration whose fields JSON holds; raises `TypeError` if it lacks one or has others."""
        given: dict[str, Any] = {
            key: tuple(each) if isinstance(each, list) else each for key, each in values.items()
        }
        return cls(**given)

    def own_layers(self, layers: int, vocabulary_size: int) -> "ModelConfig":
        """The configuration of a network of its own with layers as wide as this model's, which see all positions."""
        return replace(
            self,
            layers=layers,
            vocabulary_size=vocabulary_size,
            tied_embeddings=False,
            embedding_scale=1.0,
            post_norms=False,
            window=None,
            windowed_layers=(),
            window_rope_theta=None,
            unrotated_layers=(),
            logit_scale=1.0,
        )
