"""WebGPU: Vulkan, Metal and D3D12 through wgpu-native, and in browsers."""

from forerun.targets.gpu import GpuArithmetic, gpu_target

_KIND = {"kind": "webgpu"}
_ARITHMETIC = GpuArithmetic(dot="dot4I8Packed", round_even="round")

WEBGPU = gpu_target(
    name="webgpu",
    summary="WebGPU (Vulkan, Metal, D3D12) by wgpu-native: WGSL without extensions",
    device="webgpu",
    tvm=_KIND,
    computes=_ARITHMETIC,
)
ARM64 = gpu_target(
    name="webgpu-arm64",
    summary="WebGPU beside 64-bit Arm, as in phones: compiled only",
    device="webgpu",
    tvm=_KIND,
    computes=_ARITHMETIC,
    arch="aarch64",
    platform="linux-arm64",
)
WEB = gpu_target(
    name="webgpu-wasm32",
    summary="WebGPU in browsers, beside wasm32: run in headless Chromium",
    device="webgpu",
    tvm=_KIND,
    computes=_ARITHMETIC,
    arch="wasm32",
    platform="wasm32",
    weight_layout="columns",
)
