"""The fused operations: what the fusion passes produce and the schedule rules turn into kernels."""

from __future__ import annotations

from dataclasses import dataclass

from forerun.compiler.schemes import Scheme


@dataclass(frozen=True)
class WeightRows:
    """One weight matrix [columns, inputs] as the function names it.

    `parts` are the function inputs that hold it: (w,) for float32, (q, scale) or (q, scale, minimum).
    """

    scheme: Scheme
    parts: tuple[str, ...]
    columns: int
    inputs: int


@dataclass(frozen=True)
class Norm:
    """out = x / rms(x) · weight, or out += with `add`. Inputs: x. Output: [rows, columns], quantized or float32."""

    weight: str
    columns: int
    epsilon: float
    quantized: bool
    add: bool = False


@dataclass(frozen=True)
class Quantize:
    """Float rows → quantized rows, where their producer cannot write that form itself."""

    columns: int
    quantized: bool = True


@dataclass(frozen=True)
class Linear:
    """y = x · Wᵀ (+ bias) for one or several matrices stacked, written to `first_column` of a wider output.

    `add` names the residual: y is added to what the output already holds. Inputs: x (quantized if the scheme is).
    `head` marks the LM head and says what of it is wanted: `logits` [rows, V]; `maxima` [rows, B], the largest of
    each block of 16 logits; `blocks` [items, 16], listed blocks of one row.
    """

    weights: tuple[WeightRows, ...]
    biases: tuple[str | None, ...]
    first_column: int
    stride: int
    add: bool
    head: str | None = None

    @property
    def columns(self) -> int:
        """Output columns of all the stacked matrices."""
        return sum(rows.columns for rows in self.weights)

    @property
    def scheme(self) -> Scheme:
        """The scheme that all the stacked matrices share."""
        return self.weights[0].scheme


@dataclass(frozen=True)
class LinearSwiGlu:
    """y = activation(x · gateᵀ) · (x · upᵀ), quantized or float32; activations are those of vector_math."""

    gate: WeightRows
    up: WeightRows
    quantized: bool
    activation: str = "silu"


@dataclass(frozen=True)
class SwiGlu:
    """y = activation(gate) · up for [rows, 2·columns] with gate and up side by side."""

    columns: int
    quantized: bool
    activation: str = "silu"


@dataclass(frozen=True)
class RopeStore:
    """Rotate queries and keys and write keys and values into the cache. Inputs: qkv. Output: queries [rows, H·d].

    `cos` and `sin` are None for a layer that does not rotate.
    `window` is how many positions a row of this layer sees, 0 for all; with one the cache is a ring.
    """

    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    cos: str | None
    sin: str | None
    q_norm: str | None
    k_norm: str | None
    norm_epsilon: float | None
    window: int = 0


@dataclass(frozen=True)
class CachedAttention:
    """softmax(q · K) · V over the cache. Inputs: queries. Output: [rows, H·d], quantized or float32.

    `window` as for `RopeStore`.
    """

    heads: int
    kv_heads: int
    head_dim: int
    quantized: bool
    window: int = 0


@dataclass(frozen=True)
class Embed:
    """hidden = factor · table[token_ids]."""

    table: WeightRows
    factor: float = 1.0


Operation = Norm | Quantize | Linear | LinearSwiGlu | SwiGlu | RopeStore | CachedAttention | Embed
