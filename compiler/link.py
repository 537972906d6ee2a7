"""From kernels.o and C files to objects and shared libraries, with the C compiler for a platform."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from forerun.compiler.toolchain import find_toolchain, run_tool
from forerun.targets.platform import Platform

_C_FLAGS = ("-std=c11", "-O2", "-Wall", "-Werror")


def compile_c(source: Path, include: Path, platform: Platform, output: Path) -> None:
    """Compile a C file to an object; CompileError if there is no compiler or it refuses."""
    flags = (*_C_FLAGS, *platform.compile_flags, f"-I{include}")
    run_tool([*find_toolchain(platform).cc, *flags, "-c", str(source), "-o", str(output)])


def link(sources: Sequence[Path], include: Path, library: Path, platform: Platform) -> None:
    """Compile C sources, link them with objects among them, and write a stripped shared library."""
    flags = (*_C_FLAGS, *platform.compile_flags, "-shared", f"-I{include}")
    # TVM puts its half-float helpers into every object: a weak copy more or less does not matter.
    last = ("-o", str(library), "-s", "-lm", "-Wl,-z,noexecstack")
    run_tool([*find_toolchain(platform).cc, *flags, *map(str, sources), *last])
