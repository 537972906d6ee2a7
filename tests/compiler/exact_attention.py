"""Attention in float64, with a bound on what kernels in float32 may differ by."""

from __future__ import annotations

import numpy as np

from forerun.compiler.schedules.rope import AttentionShape

EPSILON = 2.0**-24  # relative error of one rounding


def exact_attention(
    shape: AttentionShape, query: np.ndarray, key: np.ndarray, value: np.ndarray, length: int, terms: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the result [H, d] of the last of `length` positions, and the bound [H, d].

    query: scaled [H, d]; key, value [positions, Kv, d] of the cache's type; terms: roundings of the longest sum over
    positions, above and below the fraction.
    """
    first = max(0, length - shape.window) if shape.window else 0
    k, v = (np.repeat(x[first:length].astype(np.float64), shape.group, axis=1) for x in (key, value))
    q = query.astype(np.float64)
    scores = np.einsum("hd,phd->hp", q, k)
    # A dot of d products errs by at most d·ε·Σ|q·k|, in the weight and in the largest; e^x itself by 3e-7.
    error = shape.head_dim * EPSILON * np.einsum("hd,phd->hp", abs(q), abs(k)).max(-1)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    relative = 2 * error + 4 * 3e-7 + 2 * terms * EPSILON
    bound = relative[:, None] * np.einsum("hp,phd->hd", weights, abs(v)) + 1e-30
    return np.einsum("hp,phd->hd", weights, v), bound
