"""What a target is whose kernels run on a device beside the CPU: data, as the CPU's targets are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from forerun.targets.target import Target


@dataclass(frozen=True)
class GpuArithmetic:
    """What kernels write differently from device to device.

    Attributes:
        dot: the function that multiplies four signed bytes in each of two words, empty where there is none.
        dot_adds: it takes a third argument that it adds.
        round_even: the function that rounds to the nearest whole number, ties to even.
        half: the function that makes a float32 number of a half float's bits; empty: they are taken apart.
        half_at: the function that reads a number of an array of half floats, in place of `half`.
        total: the function that gives every thread the sum of 16 shared float32 numbers: of pairs 8 apart, of pairs of
            those 4 apart …; empty: each adds them up itself.
        texel: the function that reads a word of packed weights that are an image; empty: they are memory as all else.
        matrix_rows: tiles of so many rows and more are multiplied by tensor cores; 0: there are none.
    """

    dot: str = ""
    dot_adds: bool = False
    round_even: str = "rint"
    half: str = ""
    half_at: str = ""
    total: str = ""
    texel: str = ""
    matrix_rows: int = 0


GPU_RULES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "embed": ("gpu_embed",),
        "norm": ("gpu_norm",),
        "quantize": ("gpu_quantize",),
        "matmul": ("gpu_matmul", "gpu_matmul_float"),
        "matmul_swiglu": ("gpu_matmul", "gpu_matmul_float"),
        "swiglu": ("gpu_swiglu",),
        "rope_store": ("gpu_rope_store",),
        "cached_attention": ("gpu_attention",),
    }
)


@dataclass(frozen=True)
class GpuTarget(Target):
    """One kind of device.

    Attributes:
        device: the interface through which kernels are run: cuda, webgpu or opencl.
        workgroup_threads: most threads of a workgroup, a power of two; matmuls that were not tuned have so many.
        workgroup_blocks: blocks of 16 columns that a workgroup of a matmul takes, unless it was tuned: two, whose words
            are read side by side.
        largest_piece: bytes that every device gives in one piece, by default what WebGPU and OpenCL promise; larger
            weights are split. 0: no limit.
        computes: see `GpuArithmetic`.
    """

    device: str = ""
    workgroup_threads: int = 256
    workgroup_blocks: int = 2
    largest_piece: int = 1 << 27
    computes: GpuArithmetic = GpuArithmetic()


def gpu_target(
    name: str,
    summary: str,
    device: str,
    tvm: Mapping[str, object],
    computes: GpuArithmetic,
    arch: str = "x86_64",
    platform: str = "linux-x86-64",
) -> GpuTarget:
    """Return a target with the tiles and rules that all devices share.

    `tvm` is the dict form of TVM's target. `arch` and `platform` are those of the machine that the device is in, and
    weights lie as x86-64's do, so that one bundle may serve both.
    """
    return GpuTarget(
        name=name,
        summary=summary,
        arch=arch,
        llvm=tvm,
        features=(),
        fma=True,
        rules=GPU_RULES,
        weight_layout="quads",
        tile_rows=8,
        # Rows between two of them take the larger: they read the same weights, and each kernel that is not there saves
        # its compilation on the device.
        tile_sizes=(1, 2, 4, 8),
        platform=platform,
        device=device,
        computes=computes,
    )
