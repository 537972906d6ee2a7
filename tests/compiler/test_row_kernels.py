"""Norm, embedding and rotary kernels against numpy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from emulated_kernels import EMULATED
from kernel_cache import Cache
from kernel_runner import RUNNABLE, TESTED, aligned, build_kernels, placed
from test_matmul import dense, stored

from forerun.compiler.schedules.embed import embed_quantized
from forerun.compiler.schedules.layouts import LAYOUTS, pack_blocks
from forerun.compiler.schedules.norm import rms_norm
from forerun.compiler.schedules.rope import AttentionShape, rope_store
from forerun.compiler.schemes import AFFINE4, AFFINE5, SYMMETRIC6, SYMMETRIC8
from forerun.targets import Target

TARGET_IDS = {"ids": lambda target: target.name}


@pytest.mark.parametrize("target", TESTED, **TARGET_IDS)
def test_rms_norm(target: Target, tmp_path: Path, rng: np.random.Generator) -> None:
    rows, columns, epsilon = 5, 96, 1e-5
    kernels = build_kernels(
        [
            rms_norm("plain", target.arithmetic, columns, epsilon, False),
            rms_norm("q", target.arithmetic, columns, epsilon, True),
        ],
        target,
        tmp_path,
    )
    x = placed(rng.standard_normal((rows, columns)).astype(np.float32))
    x[2] = 0  # a row of zeros must not divide by zero
    weight = placed(rng.standard_normal(columns).astype(np.float32))
    out = aligned((rows, columns), np.float32)
    kernels.call("plain", x, weight, out, rows=rows, threads=2)
    exact = x / np.sqrt((x.astype(np.float64) ** 2).mean(axis=1, keepdims=True) + epsilon) * weight
    np.testing.assert_allclose(out, exact, rtol=2e-6, atol=1e-7)
    values, low = aligned((rows, columns), np.int8), aligned((rows, columns), np.int8)
    kinds = ((6, np.float32), (6, np.int32), (6, np.int32), (3, np.float32))
    scale, total, wide_total, scaled = (aligned((rows, size), dtype) for size, dtype in kinds)
    kernels.call("q", x, weight, values, low, scale, total, wide_total, scaled, rows=rows)
    both = values.astype(np.int32) * 256 + low
    np.testing.assert_allclose(
        both / 256 * np.repeat(scale, 16, axis=1), exact, rtol=0, atol=np.abs(exact).max() / 2**15
    )
    step = np.abs(exact).reshape(rows, 6, 16).max(axis=2) / 127
    np.testing.assert_allclose(scale, step, rtol=1e-5)
    error = np.abs(values * np.repeat(scale, 16, axis=1) - exact)
    # Half a step from the high byte's rounding, and half a 256th from the 16-bit number's.
    assert (error <= 0.503 * np.repeat(step, 16, axis=1) + 1e-7).all()
    assert not values[2].any()


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=lambda layout: layout.name)
@pytest.mark.parametrize("scheme", (AFFINE4, AFFINE5, SYMMETRIC6, SYMMETRIC8), ids=lambda scheme: scheme.name)
def test_embedding_reads_the_matmul_layout(layout, scheme, tmp_path: Path, rng: np.random.Generator) -> None:
    target, vocabulary, columns = RUNNABLE[-1], 48, 64
    kernel = embed_quantized("embed", target.arithmetic, layout, scheme, columns)
    parts = stored(scheme, vocabulary, columns, rng)
    unsigned = (parts["q"].astype(np.int16) + scheme.offset).astype(np.uint8)
    packed = [placed(pack_blocks(layout, unsigned, scheme.bits))]
    for name in list(parts)[1:]:
        packed.append(placed(parts[name].reshape(vocabulary // 16, 16, -1).transpose(0, 2, 1)))
    ids = placed(rng.integers(0, vocabulary, 9).astype(np.int32))
    out = aligned((9, columns), np.float32)
    build_kernels([kernel], target, tmp_path).call("embed", ids, *packed, out, rows=9, threads=4)
    np.testing.assert_allclose(out, dense(parts)[ids], rtol=1e-6, atol=1e-6)


def rotate(x: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Rotate halves of [..., d] by angles [..., d/2]."""
    low, high = np.split(x, 2, axis=-1)
    return np.concatenate(
        [low * np.cos(angle) - high * np.sin(angle), high * np.cos(angle) + low * np.sin(angle)], -1
    )


def rotated_heads(
    qkv: np.ndarray, shape: AttentionShape, norms: Sequence[np.ndarray], angles: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return queries (scaled) and keys [M, heads, d], normalized and rotated as the shape says, and values, in float64.

    angles [M, d/2] of each row's position.
    """
    heads = qkv.reshape(len(qkv), -1, shape.head_dim).astype(np.float64)
    q, k, v = np.split(heads, [shape.heads, shape.heads + shape.kv_heads], axis=1)
    if shape.norm_epsilon is not None:
        q, k = (
            x / np.sqrt((x**2).mean(-1, keepdims=True) + shape.norm_epsilon) * w
            for x, w in zip((q, k), norms, strict=True)
        )
    turn = angles[:, None] * shape.rotates
    return rotate(q, turn) * shape.scale, rotate(k, turn), v


@pytest.mark.parametrize("kv_dtype", ("float16", "float32"))
@pytest.mark.parametrize(
    ("norm", "rotates"),
    ((None, True), (1e-6, True), (None, False), (1e-6, False)),
    ids=("plain", "qk_norm", "unrotated", "unrotated_qk_norm"),
)
@pytest.mark.parametrize("target", (RUNNABLE[0], *EMULATED[:1]), **TARGET_IDS)
def test_rope_store(
    target: Target, kv_dtype: str, norm: float | None, rotates: bool, tmp_path: Path, rng: np.random.Generator
) -> None:
    shape = AttentionShape(4, 2, 32, 0.25, kv_dtype, norm, rotates=rotates)
    cache, rows = Cache(shape, 2, 48), 5
    qkv = placed(rng.standard_normal((rows, 8 * 32)).astype(np.float32))
    positions = placed(rng.integers(0, 40, rows).astype(np.int32))
    sequences = placed(rng.integers(0, 2, rows).astype(np.int32))
    slots = placed(rng.permutation(40)[:rows].astype(np.int32))
    angles = np.arange(40)[:, None] / 100.0 ** (np.arange(16) / 16)
    tables = [placed(f(angles).astype(np.float32)) for f in (np.cos, np.sin)]
    norms = [placed(rng.standard_normal(32).astype(np.float32)) for _ in range(2)] if norm else []
    queries = aligned((rows, 4, 32), np.float32)
    kernels = build_kernels([rope_store("rope", target.arithmetic, shape)], target, tmp_path)
    where = (positions, sequences, slots, *tables) if rotates else (sequences, slots)
    arrays = (qkv, *where, *norms, queries, cache.keys, cache.values)
    kernels.call("rope", *arrays, cache.capacity, rows=rows, threads=3)
    q, k, v = rotated_heads(qkv, shape, norms, angles[positions])
    np.testing.assert_allclose(queries, q, rtol=1e-4, atol=1e-5)
    tolerance = 1e-3 if kv_dtype == "float16" else 1e-5
    for row in range(rows):
        found = cache.key(sequences[row], slots[row])
        np.testing.assert_allclose(found, k[row], rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(
            cache.values[sequences[row], :, slots[row]], v[row], rtol=tolerance, atol=tolerance
        )
