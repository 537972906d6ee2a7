"""NVIDIA GPUs by architecture: cubins, compiled by nvcc when a bundle is made."""

from dataclasses import replace

from forerun.targets.gpu import GpuArithmetic, GpuTarget, gpu_target


def cuda_target(
    number: int, devices: str, tried: str, arch: str = "x86_64", platform: str = "linux-x86-64"
) -> GpuTarget:
    """Return the target of a compute capability, as sm_`number`, in machines of that kind; `tried` says on what."""
    target = gpu_target(
        name=f"cuda-sm_{number}",
        summary=f"CUDA, compute capability {number / 10:.1f} ({devices}): {tried}",
        device="cuda",
        tvm={"kind": "cuda", "arch": f"sm_{number}"},
        computes=GpuArithmetic(
            dot="__dp4a",
            dot_adds=True,
            half="forerun_half",
            total="forerun_total",
            matrix_rows=8,
        ),
        arch=arch,
        platform=platform,
    )
    # Tiles of 8 and 16 rows take one and two instructions of the tensor cores for the same weights.
    return replace(target, largest_piece=0, tile_rows=16, tile_sizes=(1, 2, 4, 8, 16))


SM_87 = cuda_target(87, "Jetson Orin", "compiled only", "aarch64", "linux-arm64")
SM_90 = cuda_target(90, "H100, H200", "run on an emulated driver only")
