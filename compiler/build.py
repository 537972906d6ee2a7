"""A decoder's program for one target: its C file, its objects, and a library where the platform loads one."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import forerun
from forerun.compiler.gpu.launches import device_program_source
from forerun.compiler.link import compile_c, link
from forerun.compiler.native import write_object
from forerun.compiler.program import Decoder, program_source
from forerun.errors import CompileError
from forerun.targets import PLATFORMS, Target
from forerun.targets.gpu import GpuTarget


@dataclass(frozen=True)
class BuiltProgram:
    """What was built for a target, as paths within the bundle.

    `library` is None where the platform has no libraries to load. `objects` are for apps that link the program.
    `symbol` is the function that returns the program.
    """

    target: Target
    library: str | None
    objects: tuple[str, ...]
    symbol: str


def identifier(*names: str) -> str:
    """Return names as one that C takes: small letters, digits and underscores."""
    return re.sub(r"[^a-z0-9]+", "_", "_".join(names).lower()).strip("_") or "program"


def build_program(decoder: Decoder, target: Target, folder: Path, source_name: str) -> BuiltProgram:
    """Write src/`source_name`, build the kernels and the program as objects, and link them to a library.

    Raises:
        CompileError: there is no compiler for the target's platform, or one refuses.
    """
    platform = PLATFORMS[target.platform]
    source, place = folder / "src" / source_name, folder / "lib" / target.name
    write_header(folder / "src")
    place.mkdir(parents=True)
    objects = [place / "program.o"]
    if isinstance(target, GpuTarget):
        text = device_program_source(decoder, target)
    else:
        text = program_source(decoder)
        objects.append(place / "kernels.o")
        write_object(decoder.kernels.values(), target, objects[1], decoder.prefix)
    source.write_text(text, encoding="utf-8")
    compile_c(source, folder / "src", platform, objects[0])
    library = f"lib/{target.name}.so" if platform.links else None
    if library is not None:
        link(objects, folder / "src", folder / library, platform)
    names = tuple(path.relative_to(folder).as_posix() for path in objects)
    return BuiltProgram(target, library, names, decoder.symbol)


def write_header(include: Path) -> None:
    """Write the headers of programs, which travel with the runtime, under an include folder."""
    (include / "forerun").mkdir(parents=True, exist_ok=True)
    for name in ("program.h", "device.h"):
        shutil.copyfile(native_folder() / "include" / "forerun" / name, include / "forerun" / name)


def native_folder() -> Path:
    """Return where the native core's sources and headers are installed; CompileError if they are missing."""
    for place in forerun.__path__:
        path = Path(place) / "runtime" / "native"
        if (path / "include" / "forerun" / "program.h").is_file():
            return path
    raise CompileError("forerun/program.h is missing from the installation; install forerun again")
