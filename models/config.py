"""The numbers that define one decoder network, whatever file they came from."""

from dataclasses import dataclass, fields

from forerun.errors import UnsupportedModelError


@dataclass(frozen=True)
class ModelConfig:
    """Shape and constants of a decoder.

    `rope_divisors` holds one divisor per rotary frequency (d/2 of them) for models that stretch their
    context; None means plain rotary embedding. `attention_bias` is the bias of q, k and v, `output_bias` that
    of o.
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

    def __post_init__(self) -> None:
        """Refuse shapes that no network can have; raises `UnsupportedModelError`."""
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type in (int, float) and not value > 0:
                raise UnsupportedModelError(f"the model's {field.name} is {value}; it must be positive")
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
