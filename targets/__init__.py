"""Targets are data: features, limits, tile numbers and the ordered names of schedule rules."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

if not __name__.startswith("forerun."):
    raise ImportError("import forerun.targets, not the bare folder: run from an installed forerun")

from forerun.errors import TargetError
from forerun.targets import detect, x86_64
from forerun.targets.target import Target

# Best first: the order in which `detect_target` tries them.
ALL_TARGETS: tuple[Target, ...] = (
    x86_64.VNNI_512,
    x86_64.AVX_VNNI,
    x86_64.AVX2,
    x86_64.BASELINE,
)
TARGETS: Mapping[str, Target] = MappingProxyType({target.name: target for target in ALL_TARGETS})


def detect_target() -> Target:
    """Return the best target that this machine can run; TargetError if there is none."""
    return detect.detect_target(ALL_TARGETS)


def find_target(name: str | None) -> Target:
    """Return the target of that name, or this machine's best for None; TargetError lists the known ones."""
    if name is None:
        return detect_target()
    if name not in TARGETS:
        raise TargetError(f"unknown target {name!r}; known targets: {', '.join(TARGETS)}")
    return TARGETS[name]


__all__ = ["ALL_TARGETS", "TARGETS", "Target", "detect_target", "find_target"]
