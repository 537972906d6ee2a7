"""WebGPU: Vulkan, Metal and D3D12 through wgpu-native, and browsers."""

from forerun.targets.gpu import GpuArithmetic, gpu_target

WEBGPU = gpu_target(
    name="webgpu",
    summary="WebGPU (Vulkan, Metal, D3D12, browsers): WGSL without extensions",
    device="webgpu",
    tvm={"kind": "webgpu"},
    computes=GpuArithmetic(round_even="round"),
)
