"""OpenCL devices: what version 1.2 has without extensions."""

from forerun.targets.gpu import GpuArithmetic, gpu_target

_KIND = {"kind": "opencl"}

OPENCL = gpu_target(
    name="opencl",
    summary="OpenCL 1.2 and later: kernels compiled on the device, run with PoCL",
    device="opencl",
    tvm=_KIND,
    computes=GpuArithmetic(),
)
ARM64 = gpu_target(
    name="opencl-arm64",
    summary="OpenCL beside 64-bit Arm, as in phones: compiled only",
    device="opencl",
    tvm=_KIND,
    computes=GpuArithmetic(),
    arch="aarch64",
    platform="linux-arm64",
)
