"""OpenCL devices: what version 1.2 has without extensions."""

from forerun.targets.gpu import GpuArithmetic, gpu_target

OPENCL = gpu_target(
    name="opencl",
    summary="OpenCL 1.2 and later: kernels compiled on the device, run with PoCL",
    device="opencl",
    tvm={"kind": "opencl"},
    computes=GpuArithmetic(),
)
