"""OpenCL devices: what version 1.2 has without extensions."""

from dataclasses import replace

from forerun.targets.gpu import GpuArithmetic, gpu_target

OPENCL = gpu_target(
    name="opencl",
    summary="OpenCL 1.2 and later: kernels compiled on the device, run with PoCL",
    device="opencl",
    tvm={"kind": "opencl"},
    computes=GpuArithmetic(),
)
ARM64 = replace(
    OPENCL,
    name="opencl-arm64",
    summary="OpenCL beside 64-bit Arm, as in phones: compiled only",
    arch="aarch64",
    platform="linux-arm64",
)
