"""From kernels.o and program.c to one shared library, with the C compiler of the machine."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from forerun.errors import CompileError

_COMPILERS = ("cc", "gcc", "clang", "c++", "g++")


def find_compiler() -> str:
    """Return a C compiler found on the PATH; CompileError if there is none."""
    for name in _COMPILERS:
        if shutil.which(name):
            return name
    raise CompileError(f"no C compiler found (looked for {', '.join(_COMPILERS)}); install one, e.g. gcc")


def link(sources: Sequence[Path], include: Path, library: Path) -> None:
    """Compile C sources, link them with objects among them, and write a stripped shared library."""
    command = [find_compiler(), "-std=c11", "-O2", "-Wall", "-Werror", "-fPIC", "-shared", f"-I{include}"]
    # TVM puts its half-float helpers into every object: a weak copy more or less does not matter.
    command += [*map(str, sources), "-o", str(library), "-s", "-lm", "-Wl,-z,noexecstack"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CompileError(f"linking failed: {' '.join(command)}\n{done.stderr.strip()}")
