"""OpenCL devices: what version 1.2 has without extensions."""

from dataclasses import replace

from forerun.targets.gpu import GpuArithmetic, gpu_target

OPENCL = gpu_target(
    name="opencl",
    summary="OpenCL 1.2 and later: kernels compiled on the device, run with PoCL",
    device="opencl",
    tvm={"kind": "opencl"},
    computes=GpuArithmetic(
        dot="forerun_dot", dot_adds=True, half_at="forerun_half_at", total="forerun_total"
    ),
)
ARM64 = replace(
    OPENCL,
    name="opencl-arm64",
    summary="OpenCL beside 64-bit Arm, as in phones: compiled only",
    arch="aarch64",
    platform="linux-arm64",
)
# Phones' GPUs leave a thread fewer registers the more run together; both makers advise workgroups of this size. No
# number here was measured: forerun tune does that on the device.
ADRENO = replace(
    ARM64,
    name="opencl-adreno",
    summary="OpenCL on Qualcomm's Adreno, weights as images, workgroups of 128 threads: compiled only",
    workgroup_threads=128,
    # Images come by the texture cache, beside what buffers have; Qualcomm advises it for what is only read.
    computes=replace(OPENCL.computes, texel="forerun_texel"),
)
MALI = replace(
    ARM64,
    name="opencl-mali",
    summary="OpenCL on Arm's Mali, workgroups of 64 threads, tiles of up to 4 rows: compiled only",
    workgroup_threads=64,
    tile_rows=4,
    tile_sizes=(1, 2, 4),
)
