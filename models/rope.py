"""Rotary embedding: cosine and sine tables, and the ways of stretching them to longer contexts."""

import math
from collections.abc import Mapping
from typing import Any

import torch

from forerun.errors import UnsupportedModelError
from forerun.models.config import ModelConfig

SUPPORTED_SCALINGS = ("default", "linear", "llama3")


def rotary_tables(config: ModelConfig, windowed: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines of every position, float32 [context_length, d/2] each (Su et al. 2021, RoFormer).

    `windowed` asks for those of the layers with a window, which may have a base of their own and then no divisors.
    The angles are computed as transformers does, in float32, so that long positions agree with it.
    """
    steps = torch.arange(0, config.head_dim, 2, dtype=torch.int64).to(torch.float32) / config.head_dim
    own = config.window_rope_theta if windowed else None
    frequencies = 1.0 / ((config.rope_theta if own is None else own) ** steps)
    if config.rope_divisors is not None and own is None:
        frequencies = frequencies / torch.tensor(config.rope_divisors, dtype=torch.float32)
    positions = torch.arange(config.context_length, dtype=torch.float32)
    angles = torch.outer(positions, frequencies)
    return angles.cos(), angles.sin()


def scaling_divisors(scaling: Mapping[str, Any], theta: float, head_dim: int) -> tuple[float, ...] | None:
    """The divisor of each rotary frequency for a `rope_scaling` entry of a Hugging Face config.

    `linear` divides all by `factor`; `llama3` divides low frequencies by `factor`, leaves high ones and
    blends between (Llama 3.1's model card). Raises `UnsupportedModelError` naming any other kind.
    """
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "default":
        return None
    if kind not in SUPPORTED_SCALINGS:
        raise UnsupportedModelError(
            f"rope scaling {kind!r} is not supported; supported: {', '.join(SUPPORTED_SCALINGS)}"
        )
    try:
        factor = float(scaling["factor"])
        if kind == "linear":
            return (factor,) * (head_dim // 2)
        low = float(scaling["low_freq_factor"])
        high = float(scaling["high_freq_factor"])
        original = float(scaling["original_max_position_embeddings"])
    except (KeyError, TypeError, ValueError) as error:
        raise UnsupportedModelError(f"rope scaling {kind!r} lacks or misstates {error}") from error
    wavelengths = [2 * math.pi * theta ** (2 * index / head_dim) for index in range(head_dim // 2)]
    return tuple(_llama3_divisor(wavelength, factor, low, high, original) for wavelength in wavelengths)


def _llama3_divisor(wavelength: float, factor: float, low: float, high: float, original: float) -> float:
    if wavelength < original / high:
        return 1.0
    if wavelength > original / low:
        return factor
    smooth = (original / wavelength - low) / (high - low)
    return 1.0 / ((1 - smooth) / factor + smooth)
