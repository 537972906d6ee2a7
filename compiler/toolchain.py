"""The C and C++ compilers for a platform: the machine's own, the system's cross compilers, or ziglang's."""

from __future__ import annotations

import importlib.util
import platform as machine
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from forerun.errors import CompileError
from forerun.targets.platform import Platform

_OWN = (("cc", "c++"), ("gcc", "g++"), ("clang", "clang++"))
# ziglang checks for undefined behaviour and writes what debuggers want unless told otherwise.
_ZIG_FLAGS = ("-fno-sanitize=undefined", "-g0")


@dataclass(frozen=True)
class Toolchain:
    """Commands without arguments: the C compiler, the C++ compiler (empty without one), the archiver."""

    name: str
    cc: tuple[str, ...]
    cxx: tuple[str, ...]
    ar: tuple[str, ...]


def find_toolchain(platform: Platform, *, cplusplus: bool = False) -> Toolchain:
    """Return the first toolchain for a platform that is installed here, with a C++ compiler if that is needed.

    Raises:
        CompileError: there is none; the message says what was looked for and what to install.
    """
    looked_for = []
    for toolchain in _candidates(platform):
        wanted = (toolchain.cc, toolchain.ar, *([toolchain.cxx] if cplusplus else []))
        if all(_is_here(command) for command in wanted):
            return toolchain
        looked_for.append(toolchain.name)
    what = "C++ compiler" if cplusplus else "C compiler"
    raise CompileError(
        f"no {what} for {platform.name} found (looked for {', '.join(looked_for)}); install one: {platform.hint}"
    )


def _candidates(platform: Platform) -> Iterator[Toolchain]:
    if (machine.machine(), machine.system()) == (platform.machine, platform.system):
        for cc, cxx in _OWN:
            yield Toolchain(cc, (cc,), (cxx,), ("ar",))
    if platform.gcc:
        cc, cxx, ar = (f"{platform.gcc}{tool}" for tool in ("gcc", "g++", "ar"))
        yield Toolchain(cc, (cc,), (cxx,), (ar,))
    zig, flags = (sys.executable, "-m", "ziglang"), ("-target", platform.zig, *_ZIG_FLAGS)
    yield Toolchain("the Python package ziglang", (*zig, "cc", *flags), (*zig, "c++", *flags), (*zig, "ar"))


def _is_here(command: tuple[str, ...]) -> bool:
    if command[1:2] == ("-m",):
        return importlib.util.find_spec(command[2]) is not None
    return shutil.which(command[0]) is not None


def run_tool(command: Sequence[str]) -> None:
    """Run a compiler, linker or archiver; CompileError with what it said if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CompileError(f"{' '.join(command)} failed:\n{done.stderr.strip()}")
