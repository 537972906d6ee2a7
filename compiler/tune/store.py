"""What was found, kept per processor model or device and target in the user's cache folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tvm

from forerun import compiler
from forerun.compiler.schedules.tiling import Tiling, check_tiling, read_tiling
from forerun.compiler.tune.race import Found
from forerun.errors import OptionError, OutputError, TargetError
from forerun.machine import cache_folder, cpu_model
from forerun.runtime.devices import find_device
from forerun.staging import replaced_file
from forerun.targets import GpuTarget, Target

FORMAT, VERSION = "forerun-tuning", 1

# The files that decide what a matmul kernel is. Numbers found for others say nothing about it.
_KERNEL_SOURCES = ("amx", "dots", "epilogues", "layouts", "matmul", "tiling")
_DEVICE_SOURCES = ("epilogues", "layouts", "matmul", "tiling")  # beside those in `gpu`
_SHARED_SOURCES = ("tir", "vector_math", "native")


@dataclass(frozen=True)
class Tuning:
    """Numbers for matmuls by the name of their kernels, and the microseconds measured with them and without.

    `note` says why what the file holds is not used, where that is so.
    """

    tilings: Mapping[str, Tiling] = field(default_factory=dict)
    measured: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    note: str | None = None

    def including(self, found: Found) -> Tuning:
        """Return this and what was found for one more matmul."""
        measured = {
            label: {_point(*point): round(t, 2) for point, t in times.items()}
            for label, times in (("default", found.before), ("tuned", found.after))
        }
        return Tuning({**self.tilings, found.name: found.tiling}, {**self.measured, found.name: measured})


def _point(rows: int, threads: int) -> str:
    return f"rows {rows}, threads {threads}" if threads else f"rows {rows}"


def default_folder() -> Path:
    """Return where tunings are kept."""
    return cache_folder("tuning")


def measured_on(target: Target) -> str:
    """Return what a target's kernels are measured on here: the model of the processor, or the device's name.

    Raises:
        TargetError: there is no such device.
    """
    return find_device(target.device) if isinstance(target, GpuTarget) else cpu_model()


def tuning_path(folder: Path, target: Target, measured: str) -> Path:
    """Return the file for a target and the processor or device that was measured."""
    return folder / f"{target.name}-{hashlib.sha256(measured.encode()).hexdigest()[:12]}.json"


def kernel_digest(target: Target) -> str:
    """Return a digest of the sources of a target's kernels and of the compiler that builds them."""
    state = hashlib.sha256(tvm.__version__.encode())
    folder = Path(compiler.__path__[0])
    on_device = isinstance(target, GpuTarget)
    names = _DEVICE_SOURCES if on_device else _KERNEL_SOURCES
    files = [folder / "schedules" / f"{name}.py" for name in names]
    files += sorted((folder / "gpu").glob("*.py")) if on_device else []
    for path in (*files, *(folder / f"{name}.py" for name in _SHARED_SOURCES)):
        state.update(path.read_bytes())
    return state.hexdigest()[:16]


def load_tuning(folder: Path, target: Target) -> Tuning:
    """Return what is known for a target on this processor or device: nothing, with a note, where that is of no use."""
    # A device is looked for only where something is known: opening one takes a while, and many compile for others'.
    others = sorted(folder.glob(f"{target.name}-{'[0-9a-f]' * 12}.json"))
    if not others:
        return Tuning()
    try:
        measured = measured_on(target)
    except TargetError as error:
        return Tuning(note=f"{others[0]} is ignored: {error}")
    path = tuning_path(folder, target, measured)
    if isinstance(target, GpuTarget) and path not in others:
        return Tuning(note=f"{others[0]} is ignored: it is for another device than {measured}")
    try:
        return _read(json.loads(path.read_text(encoding="utf-8")), path, target, measured)
    except FileNotFoundError:
        return Tuning()
    except (OSError, ValueError, OptionError) as error:
        return Tuning(note=f"{path} is ignored: {error}")


def _kind(target: Target) -> str:
    return "device" if isinstance(target, GpuTarget) else "cpu"


def _read(content: Any, path: Path, target: Target, measured: str) -> Tuning:
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise OptionError("it is no tuning file")
    if content.get("version") != VERSION or content.get("kernels") != kernel_digest(target):
        return Tuning(note=f"{path} is ignored: it was measured with other kernels; run forerun tune again")
    if content.get(_kind(target)) != measured or content.get("target") != target.name:
        raise OptionError("it is for another processor, device or target")
    matmuls = content.get("matmuls")
    if not isinstance(matmuls, dict) or not all(isinstance(entry, dict) for entry in matmuls.values()):
        raise OptionError("its list of matmuls is damaged")
    tilings = {name: read_tiling(entry) for name, entry in matmuls.items()}
    for name, tiling in tilings.items():
        check_tiling(name, tiling, target)
    return Tuning(tilings, {name: entry.get("microseconds", {}) for name, entry in matmuls.items()})


def save_tuning(folder: Path, target: Target, tuning: Tuning) -> Path:
    """Write the file whole or not at all; return its path.

    Raises:
        OutputError: the folder cannot be written.
        TargetError: there is no such device.
    """
    measured = measured_on(target)
    path = tuning_path(folder, target, measured)
    content = {
        "format": FORMAT,
        "version": VERSION,
        "kernels": kernel_digest(target),
        _kind(target): measured,
        "target": target.name,
        "matmuls": {
            name: {**tiling.described(), "microseconds": tuning.measured.get(name, {})}
            for name, tiling in tuning.tilings.items()
        },
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replaced_file(path) as partial:
            partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(
            f"the tuning cannot be written to {folder}: {error.strerror}; choose another folder with --tuning"
        ) from error
    return path
