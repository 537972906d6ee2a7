"""Which targets the machine at hand can run."""

from __future__ import annotations

import ctypes
import os
import platform
from pathlib import Path

from forerun.errors import TargetError
from forerun.machine import CPUINFO, first_cpu
from forerun.targets.platform import PLATFORMS
from forerun.targets.target import Target

# Linux, Documentation/arch/x86/xstate.rst: system call arch_prctl, ARCH_REQ_XCOMP_PERM, the number of tiles' state.
_ASK_FOR_TILES = (158, 0x1023, 18)


def cpu_features(cpuinfo: Path = CPUINFO) -> frozenset[str]:
    """Return the CPU feature names that the kernel reports; empty where it reports none.

    The kernel's list is cpuid filtered by what the system lets programs use (AVX-512 needs the operating
    system to save its registers), which is what matters here.
    """
    fields = first_cpu(cpuinfo)
    return frozenset(fields.get("flags", fields.get("Features", "")).split())


def why_not(target: Target, features: frozenset[str], machine: str) -> str | None:
    """Return why a machine cannot run a target, or None if it can."""
    if not PLATFORMS[target.platform].links:
        return "it is compiled to object files for an app to link"
    if target.arch != machine:
        return f"it is for {target.arch}, this machine is {machine}"
    missing = [name for name in target.features if name not in features]
    if missing:
        return f"this CPU lacks {', '.join(missing)}"
    return None


def enable(target: Target) -> None:
    """Ask the system for what a target's features need before this process first uses them: tiles only.

    Raises:
        TargetError: it refuses.
    """
    if "amx_tile" not in target.features:
        return
    if ctypes.CDLL(None, use_errno=True).syscall(*_ASK_FOR_TILES):
        raise TargetError(
            f"{target.name} cannot run here: the system does not let this process use amx_tile "
            f"({os.strerror(ctypes.get_errno())}); leave --target out for this machine's best"
        )


def detect_target(targets: tuple[Target, ...]) -> Target:
    """Return the first of `targets` (best first) that this machine can run.

    Raises:
        TargetError: none can; the message says why for each.
    """
    features, machine = cpu_features(), platform.machine()
    reasons = {target.name: why_not(target, features, machine) for target in targets}
    for target in targets:
        if reasons[target.name] is None:
            return target
    listed = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    raise TargetError(f"no target runs on this machine ({listed})")
