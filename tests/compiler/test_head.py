"""The largest logit of each block, and the logits of listed blocks, against all logits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from emulated_kernels import EmulatedKernels
from kernel_runner import TESTED, Kernels, aligned, build_kernels, placed
from test_matmul import activations, linear, plan_for, stored

from forerun.compiler.operations import Linear
from forerun.compiler.schedules.plan import Field, Input, Packed, Plan
from forerun.compiler.schemes import AFFINE4, FLOAT32, SYMMETRIC4, SYMMETRIC8, Scheme
from forerun.targets import Target

THREADS = (1, 3)


def forms(target: Target, operation: Linear) -> dict[str, Plan]:
    """Return the plan of each form of the head."""
    return {form: plan_for(target, replace(operation, head=form)) for form in ("logits", "maxima", "blocks")}


def call(
    kernels: Kernels | EmulatedKernels,
    plan: Plan,
    tile: int,
    weights: dict,
    given: dict[str, np.ndarray | int],
    run: tuple[int, int],
) -> None:
    """Run one kernel of a plan on (rows, threads); `given` holds activations, fields, and `out`."""
    packed = [placed(np.ascontiguousarray(p.pack(weights.__getitem__))) for p in plan.weights]
    values: list[np.ndarray | int] = []
    for argument in plan.arguments:
        match argument:
            case Packed(index):
                values.append(packed[index])
            case Input(_, part):
                values.append(given[part])
            case Field(name):
                values.append(given[name])
            case _:
                values.append(given["out"])
    kernels.call(plan.kernels[tile].name, *values, rows=run[0], threads=run[1])


@pytest.mark.parametrize("scheme", (AFFINE4, SYMMETRIC4, SYMMETRIC8, FLOAT32), ids=lambda scheme: scheme.name)
@pytest.mark.parametrize("target", TESTED, ids=lambda target: target.name)
def test_maxima_and_blocks_are_the_same_bits(
    target: Target, scheme: Scheme, tmp_path: Path, rng: np.random.Generator
) -> None:
    columns, inputs, rows = int(rng.integers(1, 120)), 32 * int(rng.integers(1, 12)), int(rng.integers(1, 12))
    blocks = -(-columns // 16)
    weights = stored(scheme, columns, inputs, rng) | {"bias": rng.standard_normal(columns).astype(np.float32)}
    x, _ = activations(rows, inputs, scheme, rng)
    plans = forms(target, linear(scheme, columns, inputs, bias=True))
    kernels = build_kernels(
        [kernel for plan in plans.values() for kernel in plan.kernels.values()], target, tmp_path
    )
    logits = placed(np.zeros((rows, columns), np.float32))
    call(kernels, plans["logits"], min(rows, target.tile_rows), weights, x | {"out": logits}, (rows, 1))
    padded = np.full((rows, blocks * 16), -np.inf, np.float32)
    padded[:, :columns] = logits
    largest = padded.reshape(rows, blocks, 16).max(axis=2)
    for tile in plans["maxima"].kernels:
        for threads in THREADS:
            maxima = placed(np.full((rows, blocks), np.nan, np.float32))
            call(kernels, plans["maxima"], tile, weights, x | {"out": maxima}, (rows, threads))
            assert np.array_equal(maxima.view(np.uint32), largest.view(np.uint32))
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


@pytest.mark.parametrize("target", TESTED, ids=lambda target: target.name)
def test_a_block_with_nan_is_always_looked_at(
    target: Target, tmp_path: Path, rng: np.random.Generator
) -> None:
    columns, inputs, rows = 70, 64, 3
    weights = stored(SYMMETRIC8, columns, inputs, rng)
    weights["scale"][37, 1] = np.nan
    x, _ = activations(rows, inputs, SYMMETRIC8, rng)
    plan = forms(target, linear(SYMMETRIC8, columns, inputs))["maxima"]
    kernels = build_kernels(list(plan.kernels.values()), target, tmp_path)
    maxima = placed(np.zeros((rows, 5), np.float32))
    call(kernels, plan, rows, weights, x | {"out": maxima}, (rows, 1))
    assert np.isposinf(maxima[:, 2]).all()
    assert np.isfinite(maxima[:, [0, 1, 3, 4]]).all()
