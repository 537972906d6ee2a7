"""Matmul kernels for devices, run by PoCL: against numpy, and against themselves in other tiles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from device_runner import DEVICES, LAYOUTS, DeviceKernels
from kernel_runner import RUNNABLE, aligned, build_kernels
from test_gpu_rows import parts_of, quantized_words
from test_matmul import activations, arguments, dense, linear, plan_for, stored

from forerun.compiler.operations import LinearSwiGlu, WeightRows
from forerun.compiler.schemes import AFFINE4, FLOAT32, SCHEMES, Scheme
from forerun.targets.gpu import GpuTarget


def in_words(parts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return activations as devices take them: of quantized ones all parts in one array."""
    if len(parts) == 1:
        return parts
    words = [np.ascontiguousarray(part).view(np.uint32) for part in parts.values()]
    return {"values": np.concatenate(words, axis=1)}


ALL_SCHEMES = (*SCHEMES.values(), FLOAT32)


@pytest.mark.parametrize("target", LAYOUTS, ids=lambda target: target.name)
@pytest.mark.parametrize("scheme", ALL_SCHEMES, ids=lambda scheme: scheme.name)
def test_any_tile_gives_the_same_correct_bits(
    target: GpuTarget, scheme: Scheme, rng: np.random.Generator
) -> None:
    columns, inputs, rows = int(rng.integers(1, 90)), 32 * int(rng.integers(1, 20)), int(rng.integers(1, 20))
    weights = stored(scheme, columns, inputs, rng) | {"bias": rng.standard_normal(columns).astype(np.float32)}
    x, floats = activations(rows, inputs, scheme, rng)
    start = rng.standard_normal((rows + 1, columns)).astype(np.float32)
    plan = plan_for(target, linear(scheme, columns, inputs, add=True, bias=True))
    kernels, results = DeviceKernels(target, list(plan.kernels.values())), []
    for kernel in plan.kernels.values():
        out = start.copy()
        kernels.call(kernel.name, *arguments(plan, in_words(x), weights, [out]), rows=rows)
        results.append(out)
    first, bias = results[0], weights.pop("bias")
    assert all(np.array_equal(first.view(np.uint32), other.view(np.uint32)) for other in results)
    assert np.array_equal(first[rows], start[rows]), "a row past the end was written"
    # Each of K (or, quantized, K/32) additions rounds once, relative to the sum of magnitudes; so do those of the
    # threads' sums.
    magnitude = np.abs(floats) @ np.abs(dense(weights)).T
    bound = (inputs + 12) * 2.0**-24 * (magnitude + np.abs(start[:rows]) + np.abs(bias)) + 1e-6
    assert (np.abs(first[:rows] - start[:rows] - bias - floats @ dense(weights).T) <= bound).all()


@pytest.mark.parametrize("target", DEVICES, ids=lambda target: target.name)
@pytest.mark.parametrize("activation", ("silu", "gelu_tanh"))
@pytest.mark.parametrize("scheme", (AFFINE4, FLOAT32), ids=lambda scheme: scheme.name)
def test_gated(
    target: GpuTarget, scheme: Scheme, activation: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    """Quantized results are those of the CPU's kernels but for the order of the additions before."""
    columns, inputs, rows = 96, 32 * int(rng.integers(1, 9)), int(rng.integers(1, 18))
    gate, up = stored(scheme, columns, inputs, rng), stored(scheme, columns, inputs, rng)
    weights = {f"gate.{k}": v for k, v in gate.items()} | {f"up.{k}": v for k, v in up.items()}
    sides = [
        WeightRows(scheme, tuple(f"{side}.{k}" for k in gate), columns, inputs) for side in ("gate", "up")
    ]
    operation = LinearSwiGlu(sides[0], sides[1], scheme.quantized, activation)
    x, _ = activations(rows, inputs, scheme, rng)

    plan = plan_for(target, operation, "matmul_swiglu")
    kernels, results = DeviceKernels(target, list(plan.kernels.values())), []
    for kernel in plan.kernels.values():
        out = quantized_words(rows, columns) if scheme.quantized else np.zeros((rows, columns), np.float32)
        results.append(out)
        kernels.call(kernel.name, *arguments(plan, in_words(x), weights, [out]), rows=rows)
    assert all(np.array_equal(results[0], other) for other in results)
    kinds = {"values": (1, np.int8), "low": (1, np.int8), "scale": (16, np.float32), "sum": (16, np.int32)}
    kinds |= {"wide_sum": (16, np.int32), "scaled_sum": (32, np.float32)}
    kinds = kinds if scheme.quantized else {"values": (1, np.float32)}
    expected = {name: aligned((rows, columns // size), dtype) for name, (size, dtype) in kinds.items()}
    plan = plan_for(RUNNABLE[0], operation, "matmul_swiglu")
    kernel = plan.kernels[1]
    given = arguments(plan, x, weights, list(expected.values()))
    build_kernels([kernel], RUNNABLE[0], tmp_path).call(kernel.name, *given, rows=rows)
    if not scheme.quantized:
        np.testing.assert_allclose(results[0], expected["values"], rtol=1e-4, atol=1e-4)
        return
    floats = (expected["values"] * 256.0 + expected["low"]) / 256 * np.repeat(expected["scale"], 16, axis=1)
    found = parts_of(results[0], columns)
    both = found["values"] * 256.0 + found["low"]
    np.testing.assert_allclose(
        both / 256 * np.repeat(found["scale"], 16, axis=1), floats, rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("target", DEVICES, ids=lambda target: target.name)
@pytest.mark.parametrize("scheme", (AFFINE4, FLOAT32), ids=lambda scheme: scheme.name)
def test_forms_of_the_head_agree(target: GpuTarget, scheme: Scheme, rng: np.random.Generator) -> None:
    """Maxima are those of the logits, and blocks have their bits; NaN counts as infinity, padding not at all."""
    columns, inputs, rows = (
        16 * int(rng.integers(1, 6)) + int(rng.integers(1, 16)),
        32 * int(rng.integers(1, 9)),
        int(rng.integers(1, 9)),
    )
    weights = stored(scheme, columns, inputs, rng)
    x, _ = activations(rows, inputs, scheme, rng)
    if not scheme.quantized:  # all logits are below those of the padding
        weights["w"], x["values"] = -np.abs(weights["w"]), np.abs(x["values"])
    blocks = -(-columns // 16)
    logits = np.zeros((rows, columns), np.float32)
    maxima, listed = np.zeros((rows, blocks), np.float32), np.zeros((2, 16), np.float32)
    nan = "scale" if scheme.quantized else "values"
    x[nan][rows - 1, 0] = np.nan
    items = rng.permutation(blocks)[:2].astype(np.int32)
    for head, out in ((None, logits), ("maxima", maxima), ("blocks", listed)):
        plan = plan_for(target, replace(linear(scheme, columns, inputs), head=head))
        kernel = plan.kernels[max(plan.kernels)]
        given = [items, out, len(items), len(items)] if head == "blocks" else [out]
        given = arguments(plan, in_words(x), weights, given)
        DeviceKernels(target, [kernel]).call(kernel.name, *given, rows=1 if head == "blocks" else rows)
    padded = np.full((rows, blocks * 16), -np.inf, np.float32)
    padded[:, :columns] = np.where(np.isnan(logits), np.inf, logits)
    assert np.array_equal(maxima, padded.reshape(rows, blocks, 16).max(axis=2))
    assert np.isinf(maxima[-1]).all()
    for block, found in zip(items, listed, strict=True):
        inside = min(16, columns - block * 16)
        expected = logits[0, block * 16 : block * 16 + inside]
        assert np.array_equal(found[:inside].view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize("target", DEVICES, ids=lambda target: target.name)
@pytest.mark.parametrize("scheme", (AFFINE4, FLOAT32), ids=lambda scheme: scheme.name)
@pytest.mark.parametrize("each", (1, 5))
def test_blocks_for_each_row(target: GpuTarget, scheme: Scheme, each: int, rng: np.random.Generator) -> None:
    """Listed blocks of rows of their own have the bits of the same rows' logits."""
    columns, inputs, rows = 16 * int(rng.integers(2, 7)), 32 * int(rng.integers(1, 9)), 6
    weights = stored(scheme, columns, inputs, rng)
    x, _ = activations(rows, inputs, scheme, rng)
    items = rng.integers(0, columns // 16, (rows, each)).astype(np.int32)
    logits, listed = np.zeros((rows, columns), np.float32), np.zeros((rows, each, 16), np.float32)
    for head, given in ((None, [logits]), ("blocks", [items, listed, items.size, each])):
        plan = plan_for(target, replace(linear(scheme, columns, inputs), head=head))
        kernel = plan.kernels[max(plan.kernels)]
        taken = arguments(plan, in_words(x), weights, given)
        DeviceKernels(target, [kernel]).call(kernel.name, *taken, rows=rows)
    expected = np.stack([logits[row].reshape(-1, 16)[listed_items] for row, listed_items in enumerate(items)])
    assert listed.tobytes() == expected.tobytes()
