"""What tests of tuned devices share: a tiny export, devices, and numbers that are not the targets'."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from test_device_bundles import needs_device
from tiny_models import VARIANTS, write_folder

from forerun.compiler.schedules.tiling import Tiling
from forerun.export import export_model
from forerun.targets import find_runnable_target
from forerun.targets.gpu import GpuTarget

# Rows of a tile, blocks and threads of a workgroup: 4, 1, 16, 2 and 2 threads share a column.
NUMBERS = ((4, 1, 64), (2, 4, 64), (8, 1, 256), (1, 2, 64), (4, 4, 128))
TILINGS = tuple(Tiling(rows, 0, blocks=blocks, threads=threads) for rows, blocks, threads in NUMBERS)


def write_export(folder: Path) -> Path:
    """Export a tiny random model with 4-bit weights and biases."""
    changes = {**VARIANTS["qwen2"], "max_position_embeddings": 640}
    return export_model(write_folder(folder / "model", seed=1, **changes), folder / "export", "q4").directory


def runnable(name: str) -> GpuTarget:
    """Return a target that this machine has a device for; skip the test where it has none."""
    needs_device(name)
    found = find_runnable_target(name)
    assert isinstance(found, GpuTarget)
    return found


def kernel_numbers(bundle: Path) -> dict[str, dict[str, Any]]:
    """Return what a bundle's manifest says of its matmuls' numbers, by the names of their kernels."""
    body = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))["manifest"]
    numbers: dict[str, dict[str, Any]] = body["kernels"]
    return numbers
