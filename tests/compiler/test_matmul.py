"""Matmul kernels against numpy, and against themselves in other tiles, threads and instruction sets."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from emulated_kernels import EMULATED
from kernel_runner import RUNNABLE, TESTED, aligned, build_kernels, placed

from forerun.compiler.operations import Linear, LinearSwiGlu, WeightRows
from forerun.compiler.schedules import RULES
from forerun.compiler.schedules.layouts import LAYOUTS, block_bytes, pack_blocks
from forerun.compiler.schedules.plan import Decline, Packed, Plan, Settings
from forerun.compiler.schemes import AFFINE4, FLOAT32, SYMMETRIC4, SYMMETRIC5, SYMMETRIC6, SYMMETRIC8, Scheme
from forerun.compiler.schemes import SCHEMES as QUANTIZED_SCHEMES
from forerun.targets import TARGETS, Target

# symmetric5 has affine5's loads and symmetric6's sums.
QUANTIZED = [scheme for scheme in QUANTIZED_SCHEMES.values() if scheme is not SYMMETRIC5]
SCHEMES = (*QUANTIZED, FLOAT32)


def stored(scheme: Scheme, columns: int, inputs: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return random weights as an export holds them: q (signed where symmetric), scale, minimum, or w."""
    if not scheme.quantized:
        return {"w": rng.standard_normal((columns, inputs)).astype(np.float32)}
    unsigned = rng.integers(0, 2**scheme.bits, (columns, inputs))
    parts = {"q": (unsigned - scheme.offset).astype(np.uint8 if scheme.affine else np.int8)}
    parts["scale"] = (rng.random((columns, inputs // scheme.group)) * 0.01).astype(np.float16)
    if scheme.affine:
        parts["minimum"] = (rng.standard_normal((columns, inputs // 32)) * 0.05).astype(np.float16)
    return parts


def dense(parts: dict[str, np.ndarray]) -> np.ndarray:
    """Return the float64 matrix that stored weights stand for."""
    if "w" in parts:
        return parts["w"].astype(np.float64)
    shape = (len(parts["q"]), -1)
    groups = parts["q"].reshape(*parts["scale"].shape, -1)
    minimum = parts.get("minimum", np.zeros_like(parts["scale"])).astype(np.float64)[..., None]
    return (groups * parts["scale"].astype(np.float64)[..., None] + minimum).reshape(shape)


def activations(rows: int, inputs: int, scheme: Scheme, rng: np.random.Generator) -> tuple[dict, np.ndarray]:
    """Return a tile-padded activation in the scheme's form and the float64 matrix it stands for."""
    padded, wide = -(-rows // 16) * 16, scheme.wide
    if not scheme.quantized:
        x = placed(rng.standard_normal((padded, inputs)).astype(np.float32))
        return {"values": x}, x[:rows].astype(np.float64)
    q = placed(rng.integers(-127, 128, (padded, inputs)).astype(np.int8))
    scale = placed((rng.random((padded, inputs // 16)) * 0.02).astype(np.float32))
    total = placed(q.reshape(padded, -1, 16).astype(np.int32).sum(axis=2, dtype=np.int32))
    scaled = placed((scale * total).astype(np.float32).reshape(padded, -1, 2).sum(axis=2, dtype=np.float32))
    low = placed(rng.integers(-128, 128, (padded, inputs)).astype(np.int8) if wide else np.zeros_like(q))
    both = q.astype(np.int32) * 256 + low
    wide_sum = placed(both.reshape(padded, -1, 16).sum(axis=2, dtype=np.int32))
    parts = {
        "values": q,
        "low": low,
        "scale": scale,
        "sum": total,
        "wide_sum": wide_sum,
        "scaled_sum": scaled,
    }
    return parts, (both / 256.0 * np.repeat(scale, 16, axis=1))[:rows]


def plan_for(target: Target, operation: Linear | LinearSwiGlu, key: str = "matmul") -> Plan:
    """Return the plan of the target's first rule that takes the operation."""
    settings = Settings(target, "float16", 64)
    for name in target.rules[key]:
        plan = RULES[name]().apply(operation, settings)
        if not isinstance(plan, Decline):
            return plan
    raise AssertionError("every rule declined")


def arguments(plan: Plan, x: dict, weights: dict[str, np.ndarray], out: list[np.ndarray]) -> list[np.ndarray]:
    """Return the arrays of a kernel call in order."""
    packed = [placed(np.ascontiguousarray(p.pack(weights.__getitem__))) for p in plan.weights]
    given, outputs = [], iter(out)
    for argument in plan.arguments:
        if isinstance(argument, Packed):
            given.append(packed[argument.index])
        elif hasattr(argument, "index"):
            given.append(x[argument.part])
        else:
            given.append(next(outputs))
    return given


def linear(scheme: Scheme, columns: int, inputs: int, *, add: bool = False, bias: bool = False) -> Linear:
    parts = tuple(stored(scheme, 1, 32, np.random.default_rng(0)))
    rows = WeightRows(scheme, parts, columns, inputs)
    return Linear((rows,), ("bias" if bias else None,), first_column=0, stride=columns, add=add)


def run_all(
    operation: Linear, target: Target, weights, x, rows: int, start: np.ndarray, folder: Path
) -> dict:
    """Return the output for every tile size, run as one and as three threads.

    Weights of 5 and 6 bits, which differ from 4 in how they are loaded, get tiles of one row and of a number drawn.
    """
    plan = plan_for(target, operation)
    tiles = plan.kernels
    if operation.scheme.bits in (5, 6):
        tiles = {tile: tiles[tile] for tile in (1, int(np.random.default_rng().integers(2, max(tiles) + 1)))}
    kernels = build_kernels(list(tiles.values()), target, folder)
    results = {}
    for tile, kernel in tiles.items():
        for threads in (1, 3):
            out = placed(start)
            kernels.call(kernel.name, *arguments(plan, x, weights, [out]), rows=rows, threads=threads)
            results[tile, threads] = out
    return results


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)
@pytest.mark.parametrize("target", TESTED, ids=lambda target: target.name)
def test_any_tile_and_thread_count_gives_the_same_correct_bits(
    target: Target, scheme: Scheme, tmp_path: Path, rng: np.random.Generator
) -> None:
    columns, inputs, rows = int(rng.integers(1, 90)), 32 * int(rng.integers(1, 12)), int(rng.integers(1, 20))
    weights = stored(scheme, columns, inputs, rng) | {"bias": rng.standard_normal(columns).astype(np.float32)}
    x, floats = activations(rows, inputs, scheme, rng)
    start = rng.standard_normal((rows + 1, columns)).astype(np.float32)
    operation = linear(scheme, columns, inputs, add=True, bias=True)
    results = run_all(operation, target, weights, x, rows, start, tmp_path)
    first = results[1, 1]
    assert all(np.array_equal(first.view(np.uint32), other.view(np.uint32)) for other in results.values())
    assert np.array_equal(first[rows], start[rows]), "a row past the end was written"
    exact = floats @ dense({k: v for k, v in weights.items() if k != "bias"}).T
    # Each of K (or, quantized, K/32) additions rounds once, relative to the sum of magnitudes.
    magnitude = np.abs(floats) @ np.abs(dense({k: v for k, v in weights.items() if k != "bias"})).T
    bound = (inputs + 4) * 2.0**-24 * (magnitude + np.abs(start[:rows]) + np.abs(weights["bias"])) + 1e-6
    assert (np.abs(first[:rows] - start[:rows] - weights["bias"] - exact) <= bound).all()


FUSED = [target for target in TESTED if target.fma]


@pytest.mark.parametrize(
    "scheme", (AFFINE4, SYMMETRIC4, SYMMETRIC6, SYMMETRIC8), ids=lambda scheme: scheme.name
)
def test_targets_with_fma_give_equal_bits(scheme: Scheme, tmp_path: Path, rng: np.random.Generator) -> None:
    weights = stored(scheme, 50, 192, rng)
    operation = linear(scheme, 50, 192)
    plans = [plan_for(target, operation) for target in FUSED]
    tiles = [int(rng.choice(list(plan.kernels))) for plan in plans]
    libraries = [
        build_kernels([plan.kernels[tile]], target, tmp_path / target.name)
        for target, plan, tile in zip(FUSED, plans, tiles, strict=True)
    ]
    for rows in (*range(1, 18), 64):
        x, _ = activations(rows, 192, scheme, rng)
        results = []
        for plan, tile, kernels in zip(plans, tiles, libraries, strict=True):
            out = aligned((rows, 50), np.float32)
            kernels.call(plan.kernels[tile].name, *arguments(plan, x, weights, [out]), rows=rows, threads=2)
            results.append(out.view(np.uint32))
        assert all(np.array_equal(results[0], one) for one in results[1:])


@pytest.mark.parametrize("scheme", QUANTIZED, ids=lambda scheme: scheme.name)
@pytest.mark.parametrize("target", TESTED, ids=lambda target: target.name)
def test_extreme_integers_neither_saturate_nor_wrap(target: Target, scheme: Scheme, tmp_path: Path) -> None:
    """Every weight and activation at the end of its range; every sum is a whole number that float32 holds."""
    columns, inputs = 16, 32
    plan = plan_for(target, linear(scheme, columns, inputs))
    kernels = build_kernels([plan.kernels[1]], target, tmp_path)
    for value, weight in product((-128, -127, 127), (0, 2**scheme.bits - 1)):
        unsigned = np.full((columns, inputs), weight)
        parts = {"q": (unsigned - scheme.offset).astype(np.uint8 if scheme.affine else np.int8)}
        parts["scale"] = np.ones((columns, scheme.scales), np.float16)
        if scheme.affine:
            parts["minimum"] = np.zeros((columns, 1), np.float16)
        x, floats = constant_activations(value, inputs, scheme.wide)
        out = aligned((1, columns), np.float32)
        kernels.call(plan.kernels[1].name, *arguments(plan, x, parts, [out]), rows=1)
        assert np.array_equal(out[0], dense(parts) @ floats), (value, weight)


def constant_activations(value: int, inputs: int, wide: bool) -> tuple[dict, np.ndarray]:
    """Return one row whose every byte is `value`, with scale 1, and the float64 vector it stands for."""
    q = placed(np.full((1, inputs), value, np.int8))
    both = np.full((1, inputs), value * 256 + value if wide else value * 256, np.int32)
    halves = (1, inputs // 16)
    parts = {
        "values": q,
        "low": q,
        "scale": placed(np.ones(halves, np.float32)),
        "sum": placed(np.full(halves, 16 * value, np.int32)),
        "wide_sum": placed(both.reshape(1, -1, 16).sum(axis=2, dtype=np.int32)),
        "scaled_sum": placed(np.full((1, inputs // 32), 32.0 * value, np.float32)),
    }
    return parts, both[0] / 256.0


@pytest.mark.parametrize("scheme", (AFFINE4, FLOAT32), ids=lambda scheme: scheme.name)
@pytest.mark.parametrize("target", (*RUNNABLE[:2], *EMULATED[:1]), ids=lambda target: target.name)
def test_swiglu_epilogue(target: Target, scheme: Scheme, tmp_path: Path, rng: np.random.Generator) -> None:
    columns, inputs, rows = 96, 64, 7
    gate, up = stored(scheme, columns, inputs, rng), stored(scheme, columns, inputs, rng)
    weights = {f"gate.{k}": v for k, v in gate.items()} | {f"up.{k}": v for k, v in up.items()}
    sides = [
        WeightRows(scheme, tuple(f"{side}.{k}" for k in gate), columns, inputs) for side in ("gate", "up")
    ]
    operation = LinearSwiGlu(sides[0], sides[1], quantized=scheme.quantized)
    x, floats = activations(rows, inputs, scheme, rng)
    plan = plan_for(target, operation, "matmul_swiglu")
    kernels = build_kernels(list(plan.kernels.values()), target, tmp_path)
    results = []
    for kernel in plan.kernels.values():
        out = aligned((rows, columns), np.int8 if scheme.quantized else np.float32)
        kinds = ((1, np.int8), (16, np.float32), (16, np.int32), (16, np.int32), (32, np.float32))
        extra = [aligned((rows, columns // size), dtype) for size, dtype in kinds]
        outputs = [out, *extra] if scheme.quantized else [out]
        kernels.call(kernel.name, *arguments(plan, x, weights, outputs), rows=rows, threads=2)
        results.append(outputs)
    assert all(np.array_equal(a, b) for other in results for a, b in zip(results[0], other, strict=True))
    g, u = floats @ dense(gate).T, floats @ dense(up).T
    expected = g / (1 + np.exp(-g)) * u
    if not scheme.quantized:
        np.testing.assert_allclose(results[0][0], expected, rtol=1e-4, atol=1e-4)
        return
    values, low, scale, total, wide_total, scaled = results[0]
    assert np.array_equal(total, values.reshape(rows, -1, 16).astype(np.int32).sum(axis=2))
    both = values.astype(np.int32) * 256 + low
    assert np.array_equal(wide_total, both.reshape(rows, -1, 16).sum(axis=2))
    np.testing.assert_allclose(both / 256 * np.repeat(scale, 16, axis=1), expected, rtol=2e-3, atol=2e-4)
    np.testing.assert_allclose(scaled, (scale * total).reshape(rows, -1, 2).sum(axis=2), rtol=1e-5, atol=1e-6)
    # One quantization step is 1/127 of the group's largest value; rounding is off by at most half a step.
    step = np.repeat(np.abs(expected).reshape(rows, -1, 16).max(axis=2) / 127, 16, axis=1)
    assert (np.abs(values * np.repeat(scale, 16, axis=1) - expected) <= 0.51 * step + 1e-5).all()


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=lambda layout: layout.name)
@pytest.mark.parametrize("bits", (4, 5, 6, 8))
def test_packing_places_every_weight_once(layout, bits: int, rng: np.random.Generator) -> None:
    values = rng.integers(0, 2**bits, (32, 64)).astype(np.uint8)
    packed = pack_blocks(layout, values, bits)
    assert packed.shape == (2, 2, block_bytes(bits))
    for _ in range(50):
        n, k = int(rng.integers(32)), int(rng.integers(64))
        found = 0
        for place in layout.places(k % 32, bits):
            byte = int(packed[n // 16, k // 32, place.offset + (n % 16) * place.lane_stride])
            found |= (byte >> place.shift & 2**place.bits - 1) << place.first_bit
        assert found == values[n, k]


def test_rules_decline_with_reasons() -> None:
    settings = Settings(TARGETS["x86-64-v3"], "float16", 64)
    declined = RULES["matmul_vnni"]().apply(linear(AFFINE4, 32, 64), settings)
    assert isinstance(declined, Decline) and "avx512_vnni" in declined.reason
    declined = RULES["matmul_grouped"]().apply(linear(FLOAT32, 32, 64), settings)
    assert isinstance(declined, Decline) and "float32" in declined.reason
    declined = RULES["matmul_grouped"]().apply(linear(AFFINE4, 32, 48), settings)
    assert isinstance(declined, Decline) and "48" in declined.reason
