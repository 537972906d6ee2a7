"""Targets are data: features, limits, tile numbers and the ordered names of schedule rules."""

from __future__ import annotations

from collections.abc import Mapping
from platform import machine
from types import MappingProxyType

if not __name__.startswith("forerun."):
    raise ImportError("import forerun.targets, not the bare folder: run from an installed forerun")

from forerun.errors import TargetError
from forerun.targets import arm64, cuda, detect, metal, opencl, wasm32, webgpu, x86_64
from forerun.targets.gpu import GpuTarget
from forerun.targets.onnxruntime import ONNXRUNTIME, Engine
from forerun.targets.platform import ALL_PLATFORMS, PLATFORMS, Platform
from forerun.targets.target import Target

# Best first: the order in which `detect_target` tries them. AMX has to be asked for by name: its kernels have run on
# no hardware yet, and a bundle for it needs the system's leave to use the tiles.
ALL_TARGETS: tuple[Target, ...] = (
    x86_64.VNNI_512,
    x86_64.AMX,
    x86_64.AVX_VNNI,
    x86_64.AVX2,
    x86_64.BASELINE,
    arm64.I8MM,
    arm64.DOTPROD,
    arm64.NEON,
    arm64.IOS_DOTPROD,
    arm64.IOS_NEON,
    wasm32.SIMD,
)
# Devices beside the CPU, never chosen unasked: whether one is faster than the CPU is not known before it is measured.
ALL_DEVICES: tuple[GpuTarget, ...] = (
    cuda.SM_90,
    cuda.SM_87,
    opencl.OPENCL,
    opencl.ARM64,
    opencl.ADRENO,
    opencl.MALI,
    webgpu.WEBGPU,
    webgpu.ARM64,
    webgpu.WEB,
    metal.METAL,
)
TARGETS: Mapping[str, Target] = MappingProxyType(
    {target.name: target for target in (*ALL_TARGETS, *ALL_DEVICES)}
)


def detect_target() -> Target:
    """Return the best target that this machine can run; TargetError if there is none."""
    return detect.detect_target(ALL_TARGETS)


def find_target(name: str | None) -> Target:
    """Return the target of that name, or this machine's best for None; TargetError lists the known ones.

    `onnxruntime` is none of them: there is nothing to compile for it.
    """
    if name is None:
        return detect_target()
    if name == ONNXRUNTIME.name:
        raise TargetError(
            f"the target {name} runs ONNX files as they are: there is nothing to tune, and no other target beside it in"
            f" a bundle; forerun compile DIR --target {name}"
        )
    if name not in TARGETS:
        raise TargetError(
            f"unknown target {name!r}; known targets: {', '.join((*TARGETS, ONNXRUNTIME.name))}"
        )
    return TARGETS[name]


def find_runnable_target(name: str | None) -> Target:
    """Return the target of that name, or this machine's best, for kernels to be run in this process.

    Of a device's target this looks at the machine alone: whether there is such a device, the runtime says.

    Raises:
        TargetError: this machine cannot run it, or its system refuses what the target needs.
    """
    target = find_target(name)
    reason = detect.why_not(target, detect.cpu_features(), machine())
    if reason is not None:
        raise TargetError(
            f"{target.name} cannot run here: {reason}; leave --target out for this machine's best"
        )
    detect.enable(target)
    return target


def find_platform(name: str) -> Platform:
    """Return the platform of that name; TargetError lists the known ones."""
    if name not in PLATFORMS:
        raise TargetError(f"unknown platform {name!r}; known platforms: {', '.join(PLATFORMS)}")
    return PLATFORMS[name]


__all__ = [
    "ALL_DEVICES",
    "ALL_PLATFORMS",
    "ALL_TARGETS",
    "ONNXRUNTIME",
    "PLATFORMS",
    "TARGETS",
    "Engine",
    "GpuTarget",
    "Platform",
    "Target",
    "detect_target",
    "find_platform",
    "find_runnable_target",
    "find_target",
]
