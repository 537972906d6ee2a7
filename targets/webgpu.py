"""WebGPU: Vulkan, Metal and D3D12 through wgpu-native, and in browsers."""

from dataclasses import replace

from forerun.targets.gpu import GpuArithmetic, gpu_target

WEBGPU = gpu_target(
    name="webgpu",
    summary="WebGPU (Vulkan, Metal, D3D12) by wgpu-native: WGSL without extensions",
    device="webgpu",
    tvm={"kind": "webgpu"},
    computes=GpuArithmetic(dot="dot4I8Packed", round_even="round", half="forerun_half"),
)
ARM64 = replace(
    WEBGPU,
    name="webgpu-arm64",
    summary="WebGPU beside 64-bit Arm, as in phones: compiled only",
    arch="aarch64",
    platform="linux-arm64",
)
# Weights lie as wasm32's do, so that one bundle may serve both.
WEB = replace(
    WEBGPU,
    name="webgpu-wasm32",
    summary="WebGPU in browsers, beside wasm32: run in headless Chromium",
    arch="wasm32",
    platform="wasm32",
    weight_layout="columns",
)
