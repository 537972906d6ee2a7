"""The head's bounds on blocks of logits, and the logits of listed blocks, against all logits."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from kernel_runner import RUNNABLE, Kernels, aligned, placed
from test_matmul import SCHEMES, activations, linear, plan_for, stored

from forerun.compiler.operations import Linear
from forerun.compiler.schedules.head import row_norms
from forerun.compiler.schedules.plan import Field, Input, Packed, Plan, Private
from forerun.compiler.schemes import SYMMETRIC8, Scheme
from forerun.targets import Target

THREADS = (1, 3)


def forms(target: Target, operation: Linear) -> dict[str, Plan]:
    """Return the plan of each form of the head."""
    return {form: plan_for(target, replace(operation, head=form)) for form in ("logits", "bounds", "blocks")}


def call(
    kernels: Kernels,
    plan: Plan,
    tile: int,
    weights: dict,
    given: dict[str, np.ndarray | int],
    run: tuple[int, int],
) -> None:
    """Run one kernel of a plan on (rows, threads); `given` holds activations, fields, and `out`."""
    packed = [placed(np.ascontiguousarray(p.pack(weights.__getitem__))) for p in plan.weights]
    private = placed(np.zeros(4096, np.float32))
    values: list[np.ndarray | int] = []
    for argument in plan.arguments:
        match argument:
            case Packed(index):
                values.append(packed[index])
            case Input(_, part):
                values.append(given[part])
            case Field(name):
                values.append(given[name])
            case Private():
                values.append(private)
            case _:
                values.append(given["out"])
    kernels.call(plan.kernels[tile].name, *values, rows=run[0], threads=run[1])


@pytest.mark.parametrize("bias", (False, True), ids=("plain", "bias"))
@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)
@pytest.mark.parametrize("target", RUNNABLE, ids=lambda target: target.name)
def test_bounds_hold_and_blocks_are_the_same_bits(
    target: Target, scheme: Scheme, bias: bool, tmp_path: Path, rng: np.random.Generator
) -> None:
    columns, inputs, rows = int(rng.integers(1, 120)), 32 * int(rng.integers(1, 12)), int(rng.integers(1, 12))
    blocks = -(-columns // 16)
    weights = stored(scheme, columns, inputs, rng) | {"bias": rng.standard_normal(columns).astype(np.float32)}
    x, _ = activations(rows, inputs, scheme, rng)
    plans = forms(target, linear(scheme, columns, inputs, bias=bias))
    kernels = Kernels(
        [kernel for plan in plans.values() for kernel in plan.kernels.values()], target, tmp_path
    )
    logits = placed(np.zeros((rows, columns), np.float32))
    call(kernels, plans["logits"], min(rows, 8), weights, x | {"out": logits}, (rows, 1))
    padded = np.full((rows, blocks * 16), -np.inf, np.float32)
    padded[:, :columns] = logits
    largest = padded.reshape(rows, blocks, 16).max(axis=2)
    for tile in plans["bounds"].kernels:
        for threads in THREADS:
            bounds = placed(np.full((rows, 2, blocks), np.nan, np.float32))
            call(kernels, plans["bounds"], tile, weights, x | {"out": bounds}, (rows, threads))
            assert (bounds[:, 0] >= largest).all(), "a logit exceeds its bound from above"
            assert (bounds[:, 1] <= largest).all(), "no logit reaches the bound from below"
    row = int(rng.integers(rows))
    items = placed(rng.permutation(blocks).astype(np.int32)[: int(rng.integers(1, blocks + 1))])
    one = {name: placed(np.ascontiguousarray(values[row:])) for name, values in x.items()}
    for threads in THREADS:
        out = aligned((len(items), 16), np.float32)
        fields = {"items": items, "item_count": len(items), "out": out}
        call(kernels, plans["blocks"], 0, weights, one | fields, (1, threads))
        expected = padded[row].reshape(blocks, 16)[items]
        inside = np.isfinite(expected)
        assert np.array_equal(out[inside].view(np.uint32), expected[inside].view(np.uint32))


@pytest.mark.parametrize("target", RUNNABLE, ids=lambda target: target.name)
def test_a_block_with_nan_is_always_looked_at(
    target: Target, tmp_path: Path, rng: np.random.Generator
) -> None:
    columns, inputs, rows = 70, 64, 3
    weights = stored(SYMMETRIC8, columns, inputs, rng)
    weights["scale"][37, 1] = np.nan
    x, _ = activations(rows, inputs, SYMMETRIC8, rng)
    plan = forms(target, linear(SYMMETRIC8, columns, inputs))["bounds"]
    kernels = Kernels(list(plan.kernels.values()), target, tmp_path)
    bounds = placed(np.zeros((rows, 2, 5), np.float32))
    call(kernels, plan, rows, weights, x | {"out": bounds}, (rows, 1))
    assert np.isposinf(bounds[:, 0, 2]).all()
    assert np.isfinite(bounds[:, 0, [0, 1, 3, 4]]).all()


@pytest.mark.parametrize("target", [t for t in RUNNABLE if t.screens_head], ids=lambda target: target.name)
def test_a_screen_is_as_tight_as_its_proof(target: Target, tmp_path: Path, rng: np.random.Generator) -> None:
    """The bounds are apart by twice ‖w‖·‖x_low‖ + ‖r‖·‖x_high‖ at most, and rounding adds little to that."""
    columns, inputs, rows = 96, 576, 4
    weights = stored(SYMMETRIC8, columns, inputs, rng)
    x, _ = activations(rows, inputs, SYMMETRIC8, rng)
    plan = forms(target, linear(SYMMETRIC8, columns, inputs))["bounds"]
    kernels = Kernels(list(plan.kernels.values()), target, tmp_path)
    bounds = placed(np.zeros((rows, 2, columns // 16), np.float32))
    call(kernels, plan, rows, weights, x | {"out": bounds}, (rows, 2))
    scale = np.repeat(weights["scale"].astype(np.float64), 32, axis=1)
    residual = (weights["q"].astype(np.int16) + 128) % 4 - 2
    step = np.repeat(x["scale"][:rows].astype(np.float64), 16, axis=1)
    lengths = {part: np.linalg.norm(x[part][:rows] * step, axis=1) for part in ("values", "low")}
    error = np.outer(lengths["values"], np.linalg.norm(residual * scale, axis=1))
    error += np.outer(lengths["low"] / 256, np.linalg.norm(weights["q"] * scale, axis=1))
    widest = error.reshape(rows, -1, 16).max(axis=2)
    assert (bounds[:, 0] - bounds[:, 1] <= 2 * widest * 1.02).all()


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_norms_are_rounded_up(data: st.DataObject) -> None:
    values = data.draw(arrays(np.int8, (3, 64), elements=st.integers(-127, 127)))
    scale = data.draw(arrays(np.float16, (3, 2), elements=st.floats(0, 60000, width=16)))
    exact = values * np.repeat(scale.astype(np.float64), 32, axis=1)
    rest = ((values.astype(np.int16) + 128) % 4 - 2) * np.repeat(scale.astype(np.float64), 32, axis=1)
    for residual, part in ((False, exact), (True, rest)):
        norms = row_norms(values, scale, residual).astype(np.float64)
        squares = [sum((Fraction(float(v)) ** 2 for v in row), Fraction(0)) for row in part]
        assert all(
            norm == np.inf or Fraction(norm) ** 2 >= square
            for norm, square in zip(norms, squares, strict=True)
        )
