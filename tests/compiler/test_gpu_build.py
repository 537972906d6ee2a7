"""CUDA's binaries without a GPU: kernels of real shapes fit into registers, and what does not is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from test_device_bundles import compile_tiny
from test_matmul import stored

from forerun.compiler.gpu.build import DeviceSource, build_cubin, device_sources, entry_name, read_resources
from forerun.compiler.gpu.draws import list_blocks, pick_blocks, score_blocks
from forerun.compiler.gpu.heads import MULTIPLY
from forerun.compiler.gpu.writer import GpuKernel
from forerun.compiler.operations import (
    CachedAttention,
    Embed,
    Linear,
    LinearSwiGlu,
    Norm,
    Operation,
    RopeStore,
    WeightRows,
)
from forerun.compiler.schedules import RULES
from forerun.compiler.schedules.plan import Plan, Settings
from forerun.compiler.schemes import SCHEMES, Scheme
from forerun.errors import CompileError, TargetError
from forerun.runtime.devices import find_device
from forerun.runtime.session import LoadedProgram
from forerun.targets.cuda import SM_87, SM_90
from forerun.targets.gpu import GpuTarget

needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc (the CUDA toolkit)")
HIDDEN, FEED_FORWARD, HEADS, KV_HEADS, HEAD_DIM, VOCABULARY = 4096, 14336, 32, 8, 128, 128256


def rows_of(scheme: Scheme, columns: int, inputs: int) -> WeightRows:
    parts = tuple(stored(scheme, 1, 32, np.random.default_rng(0)))
    return WeightRows(scheme, parts, columns, inputs)


def operations(scheme: Scheme) -> list[tuple[str, Operation]]:
    """What a decoder of 8 billion weights is made of, with the rule for each."""
    qkv = rows_of(scheme, (HEADS + 2 * KV_HEADS) * HEAD_DIM, HIDDEN)
    down, head = rows_of(scheme, HIDDEN, FEED_FORWARD), rows_of(scheme, VOCABULARY, HIDDEN)
    gate = rows_of(scheme, FEED_FORWARD, HIDDEN)
    return [
        ("gpu_embed", Embed(head)),
        ("gpu_norm", Norm("weight", HIDDEN, 1e-5, True)),
        ("gpu_matmul", Linear((qkv,), (None,), 0, qkv.columns, add=False)),
        ("gpu_matmul", Linear((down,), (None,), 0, HIDDEN, add=True)),
        ("gpu_matmul", LinearSwiGlu(gate, gate, True)),
        ("gpu_matmul", Linear((head,), (None,), 0, VOCABULARY, add=False, head="maxima")),
        ("gpu_matmul", Linear((head,), (None,), 0, VOCABULARY, add=False, head="blocks")),
        ("gpu_rope_store", RopeStore(HEADS, KV_HEADS, HEAD_DIM, 0.1, "cos", "sin", "q", "k", 1e-5)),
        ("gpu_attention", CachedAttention(HEADS, KV_HEADS, HEAD_DIM, True)),
    ]


def kernels_of(target: GpuTarget, scheme: Scheme) -> list[GpuKernel]:
    settings, found = Settings(target, "float16", 256), {}
    for rule, operation in operations(scheme):
        plan = RULES[rule]().apply(operation, settings)
        assert isinstance(plan, Plan)
        found |= {kernel.name: kernel for kernel in (*plan.kernels.values(), *plan.stages)}
    choices = (score_blocks("score", target, 128256), list_blocks("list", target, 128256 // 16))
    return [*found.values(), pick_blocks("pick", target, 128256 // 16), *choices]


@needs_nvcc
@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=lambda scheme: scheme.name)
@pytest.mark.parametrize("target", (SM_87, SM_90), ids=lambda target: target.name)
def test_kernels_of_a_large_decoder_fit(target: GpuTarget, scheme: Scheme, tmp_path: Path) -> None:
    """No register is spilled (the build refuses that), three workgroups of 256 threads fit side by side, dot products
    and, from 8 rows on, tensor cores are used.
    """
    kernels = kernels_of(target, scheme)
    sources = device_sources(kernels, target)
    resources = build_cubin(sources.values(), target, tmp_path / "kernels.cubin")
    assert (tmp_path / "kernels.cubin").stat().st_size > 0
    assert set(resources) == {entry_name(kernel) for kernel in kernels}
    for kernel in kernels:
        used = resources[entry_name(kernel)]
        print(f"{kernel.name}: {used}")
        assert used.registers * kernel.threads <= 65536 // 3, kernel.name
        unit = kernel.name.endswith(("_rows8", "_rows16")) and scheme.quantized
        # Tiles of 16 rows bring more sums together; a multiprocessor has 100 KB and more.
        assert used.shared_bytes <= (24576 if unit else 16384), kernel.name
        text = sources[kernel.name].text
        assert unit == (f"    {MULTIPLY}((&" in text), kernel.name
        assert (kernel.name.startswith("linear") and not unit) == ("__dp4a" in text), kernel.name


# Of workgroups of 1,024 threads each has 64 registers; these numbers all live at once.
SPILLING = """
extern "C" __global__ void __launch_bounds__(1024) large_kernel(float* x) {
  float v[128];
  #pragma unroll
  for (int i = 0; i < 128; ++i) v[i] = x[i * 1024 + threadIdx.x];
  __syncthreads();
  #pragma unroll
  for (int i = 0; i < 128; ++i) x[i * 1024 + threadIdx.x] = v[i] * v[(i * 37) % 128];
}
"""


@needs_nvcc
def test_a_kernel_that_spills_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match=r"large_kernel spills \d+ bytes of registers on cuda-sm_87"):
        build_cubin([DeviceSource(SPILLING, ("x",))], SM_87, tmp_path / "kernels.cubin")
    assert not (tmp_path / "kernels.cubin").exists()


def test_without_nvcc_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CompileError, match="install the CUDA toolkit"):
        build_cubin([], SM_90, tmp_path / "kernels.cubin")


def test_resources_are_read_off_the_report() -> None:
    report = """
ptxas info    : Compiling entry function 'a_kernel' for 'sm_90'
ptxas info    : Function properties for a_kernel
    16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 1024 bytes smem
ptxas info    : Compiling entry function 'b_kernel' for 'sm_90'
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 12 registers
"""
    a, b = read_resources(report).values()
    assert (a.registers, a.spilled_bytes, a.shared_bytes) == (40, 20, 1024)
    assert (b.registers, b.spilled_bytes, b.shared_bytes) == (12, 0, 0)
    with pytest.raises(CompileError, match="reads otherwise"):
        read_resources("Compiling entry function 'a_kernel' and nothing more")


@needs_nvcc
def test_cuda_is_compiled_and_asks_for_a_driver(tmp_path: Path) -> None:
    """One sentence where there is no driver; the C file says what each kernel uses of the GPU."""
    bundle = compile_tiny(tmp_path, "cuda-sm_90", "qwen2", "q4", "f16")
    text = (bundle / "src" / "cuda-sm_90.c").read_text()
    kernels = text.count('_kernel", 0, ')
    assert kernels > 25
    assert text.count(" registers, 0 bytes spilled, ") == kernels
    try:
        found = find_device("cuda")
    except TargetError as error:
        assert "driver" in str(error)
        with pytest.raises(TargetError, match="driver"):
            LoadedProgram(bundle, "cuda-sm_90")
    else:
        assert found
    with LoadedProgram(bundle) as program:
        assert program.device == ""
