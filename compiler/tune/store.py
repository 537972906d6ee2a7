"""What was found, kept per processor model and target in the user's cache folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tvm

from forerun import compiler
from forerun.compiler.schedules.tiling import Tiling, read_tiling
from forerun.compiler.tune.search import Found
from forerun.errors import OptionError, OutputError
from forerun.machine import cache_folder, cpu_model
from forerun.staging import replaced_file
from forerun.targets import Target

FORMAT, VERSION = "forerun-tuning", 1

# The files that decide what a matmul kernel is. Numbers found for others say nothing about it.
_KERNEL_SOURCES = ("amx", "dots", "epilogues", "layouts", "matmul", "tiling")
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
            label: {f"rows {rows}, threads {threads}": round(t, 2) for (rows, threads), t in times.items()}
            for label, times in (("default", found.before), ("tuned", found.after))
        }
        return Tuning({**self.tilings, found.name: found.tiling}, {**self.measured, found.name: measured})


def default_folder() -> Path:
    """Return where tunings are kept."""
    return cache_folder("tuning")


def tuning_path(folder: Path, target: Target) -> Path:
    """Return the file for this machine's processor and a target."""
    return folder / f"{target.name}-{hashlib.sha256(cpu_model().encode()).hexdigest()[:12]}.json"


def kernel_digest() -> str:
    """Return a digest of the kernels' sources and of the compiler that builds them."""
    state = hashlib.sha256(tvm.__version__.encode())
    folder = Path(compiler.__path__[0])
    files = [folder / "schedules" / f"{name}.py" for name in _KERNEL_SOURCES]
    for path in (*files, *(folder / f"{name}.py" for name in _SHARED_SOURCES)):
        state.update(path.read_bytes())
    return state.hexdigest()[:16]


def load_tuning(folder: Path, target: Target) -> Tuning:
    """Return what is known for this processor and a target: nothing, with a note, where the file is of no use."""
    path = tuning_path(folder, target)
    try:
        return _read(json.loads(path.read_text(encoding="utf-8")), path, target)
    except FileNotFoundError:
        return Tuning()
    except (OSError, ValueError, OptionError) as error:
        return Tuning(note=f"{path} is ignored: {error}")


def _read(content: Any, path: Path, target: Target) -> Tuning:
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise OptionError("it is no tuning file")
    if content.get("version") != VERSION or content.get("kernels") != kernel_digest():
        return Tuning(note=f"{path} is ignored: it was measured with other kernels; run forerun tune again")
    if content.get("cpu") != cpu_model() or content.get("target") != target.name:
        raise OptionError("it is for another processor or target")
    matmuls = content.get("matmuls")
    if not isinstance(matmuls, dict) or not all(isinstance(entry, dict) for entry in matmuls.values()):
        raise OptionError("its list of matmuls is damaged")
    tilings = {name: read_tiling(entry) for name, entry in matmuls.items()}
    return Tuning(tilings, {name: entry.get("microseconds", {}) for name, entry in matmuls.items()})


def save_tuning(folder: Path, target: Target, tuning: Tuning) -> Path:
    """Write the file whole or not at all; return its path.

    Raises:
        OutputError: the folder cannot be written.
    """
    path = tuning_path(folder, target)
    content = {
        "format": FORMAT,
        "version": VERSION,
        "kernels": kernel_digest(),
        "cpu": cpu_model(),
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
