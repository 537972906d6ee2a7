"""Metal for those who do without wgpu-native: sources and launch tables for a backend of the app's own."""

from forerun.targets.gpu import GpuArithmetic, gpu_target

METAL = gpu_target(
    name="metal",
    summary="Metal's sources, checked for syntax and types; the core has no backend",
    device="metal",
    tvm={"kind": "metal"},
    computes=GpuArithmetic(),
    arch="arm64",
    platform="ios-arm64",
)
