"""Which targets the machine at hand can run."""

from __future__ import annotations

import platform
from pathlib import Path

from forerun.errors import TargetError
from forerun.targets.target import Target


def cpu_features(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Return the CPU feature names that the kernel reports; empty where it reports none.

    The kernel's list is cpuid filtered by what the system lets programs use (AVX-512 needs the operating
    system to save its registers), which is what matters here.
    """
    try:
        text = cpuinfo.read_text(encoding="ascii", errors="replace")
    except OSError:
        return frozenset()
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def why_not(target: Target, features: frozenset[str], machine: str) -> str | None:
    """Return why a machine cannot run a target, or None if it can."""
    if target.arch != machine:
        return f"it is for {target.arch}, this machine is {machine}"
    missing = [name for name in target.features if name not in features]
    if missing:
        return f"this CPU lacks {', '.join(missing)}"
    return None


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
