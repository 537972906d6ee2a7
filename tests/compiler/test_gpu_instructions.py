"""What a device has instructions for: the bits are those of the kernels that do without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from device_runner import DEVICES, SM_90, DeviceKernels
from test_gpu_matmul import in_words
from test_matmul import activations, arguments, linear, plan_for, stored
from tvm import tirx

from forerun.compiler import tir
from forerun.compiler.gpu.rows import rms_norm
from forerun.compiler.gpu.writer import GpuKernel, Grid, writing
from forerun.compiler.schemes import SCHEMES, Scheme
from forerun.targets.gpu import GpuArithmetic, GpuTarget
from forerun.targets.opencl import OPENCL


def plain(target: GpuTarget) -> GpuTarget:
    """Return the target with float32 and shared memory alone."""
    return replace(target, computes=GpuArithmetic())


def convert_halves(target: GpuTarget, count: int) -> GpuKernel:
    """Return the kernel that makes float32 numbers of half floats. Parameters: halves, out."""
    grid, inputs, outputs = Grid(count // 256, 0), {"halves": "float16"}, {"out": "float32"}
    with writing("convert", target.computes, inputs, outputs, {}, threads=256, grid=grid) as (writer, done):
        place = tir.bind(writer.x * 256 + writer.thread)
        tir.store_one(writer.named["out"], writer.load_half("halves", place), place)
    return done[0]


@pytest.mark.parametrize("target", DEVICES, ids=lambda target: target.name)
def test_every_half_float_is_read_exactly(target: GpuTarget) -> None:
    halves, found = np.arange(1 << 16, dtype=np.uint16), np.zeros(1 << 16, np.float32)
    kernels = DeviceKernels(target, [convert_halves(target, 1 << 16)])
    kernels.call("convert", halves.view(np.uint32), found, rows=1)
    expected = halves.view(np.float16).astype(np.float32)
    there = ~np.isnan(expected)
    assert np.array_equal(np.isnan(found), ~there)
    assert np.array_equal(found.view(np.uint32)[there], expected.view(np.uint32)[there])


def results_of(targets: Sequence[GpuTarget], columns: int, x: np.ndarray, weight: np.ndarray) -> list[bytes]:
    """Return the norms of rows by each target's kernel."""
    found = []
    for target in targets:
        out = np.zeros_like(x)
        DeviceKernels(target, [rms_norm("norm", target, columns, 1e-5, False, False)]).call(
            "norm", x, weight, out, rows=len(x)
        )
        found.append(out.tobytes())
    return found


@pytest.mark.parametrize("columns", (96, 1056))
@pytest.mark.parametrize("threads", (32, 64, 256))
@pytest.mark.parametrize("target", (OPENCL, SM_90), ids=lambda target: target.name)
def test_sums_by_shuffles(target: GpuTarget, threads: int, columns: int, rng: np.random.Generator) -> None:
    x = rng.standard_normal((3, columns)).astype(np.float32)
    one = replace(target, workgroup_threads=threads)
    with_them, without = results_of(
        (one, plain(one)), columns, x, rng.standard_normal(columns).astype(np.float32)
    )
    assert with_them == without


def multiply_bytes(target: GpuTarget, count: int) -> GpuKernel:
    """Return the kernel that adds products of signed bytes to numbers. Parameters: a, b, out."""
    inputs, outputs = {"a": "uint32", "b": "uint32"}, {"out": "int32"}
    grid = Grid(count // 256, 0)
    with writing("multiply", target.computes, inputs, outputs, {}, threads=256, grid=grid) as (writer, done):
        place = tir.bind(writer.x * 256 + writer.thread)
        a, b, out = (writer.named[name] for name in ("a", "b", "out"))
        tir.store_one(out, writer.add_products(a[place], b[place], out[place]), place)
    return done[0]


@pytest.mark.parametrize("target", DEVICES, ids=lambda target: target.name)
def test_products_of_signed_bytes(target: GpuTarget, rng: np.random.Generator) -> None:
    a, b = (rng.integers(-128, 128, (1024, 4), np.int8) for _ in range(2))
    a[:256], b[:256] = -128, np.repeat(rng.choice(np.array([-128, 127], np.int8), 256), 4).reshape(256, 4)
    out = rng.integers(-(1 << 24), 1 << 24, 1024, np.int32)
    expected = out + (a.astype(np.int32) * b).sum(1)
    DeviceKernels(target, [multiply_bytes(target, 1024)]).call(
        "multiply", a.view(np.uint32).reshape(-1), b.view(np.uint32).reshape(-1), out, rows=1
    )
    assert np.array_equal(out, expected)


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=lambda scheme: scheme.name)
def test_tensor_cores(scheme: Scheme, rng: np.random.Generator) -> None:
    """Of two blocks of columns and four, beside rows and columns that are not there."""
    columns, inputs, rows = 16 * int(rng.integers(1, 8)) + 5, 32 * int(rng.integers(1, 30)), 13
    weights, (x, _) = stored(scheme, columns, inputs, rng), activations(rows, inputs, scheme, rng)
    found = []
    for target in (SM_90, plain(SM_90)):
        for blocks in (2, 4):
            plan = plan_for(replace(target, workgroup_blocks=blocks), linear(scheme, columns, inputs))
            kernels = DeviceKernels(target, [plan.kernels[tile] for tile in (1, 8, 16)])
            for name in kernels.kernels:
                out = np.zeros((rows, columns), np.float32)
                kernels.call(name, *arguments(plan, in_words(x), weights, [out]), rows=rows)
                found.append((blocks, out.tobytes()))
    for blocks in (2, 4):
        assert len({bits for other, bits in found if other == blocks}) == 1, "tiles differ"


@pytest.mark.parametrize("target", DEVICES, ids=lambda target: target.name)
def test_constants_keep_all_digits(target: GpuTarget, rng: np.random.Generator) -> None:
    """TVM writes seven of them for all devices but CUDA's."""
    numbers = rng.standard_normal(60) * 10.0 ** rng.integers(-30, 30, 60)
    grid, found = Grid(1, 0), np.zeros(60, np.float32)
    with writing("numbers", target.computes, {}, {"out": "float32"}, {}, threads=32, grid=grid) as (
        writer,
        done,
    ):
        for place, number in enumerate(numbers):
            tir.store_one(writer.named["out"], tirx.const(float(number), "float32"), place)
    DeviceKernels(target, done).call("numbers", found, rows=1)
    assert np.array_equal(found, numbers.astype(np.float32))
