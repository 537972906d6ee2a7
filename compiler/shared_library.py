"""One shared library of the core and a package's programs, and the check that every device can load it."""

from __future__ import annotations

from pathlib import Path

from forerun.compiler.build import native_folder
from forerun.compiler.elf import read_demands
from forerun.compiler.toolchain import Toolchain, run_tool
from forerun.errors import CompileError
from forerun.targets import Platform
from forerun.targets.platform import AllowedDemands


def link_checked(platform: Platform, toolchain: Toolchain, folder: Path, name: str) -> None:
    """Link libforerun.a and lib`name`.a in `folder` to lib`name`.so and check what it asks of the system.

    Raises:
        CompileError: it cannot be linked, or asks for what not every device has.
    """
    assert platform.demands is not None
    library = folder / f"lib{name}.so"
    core = native_folder()
    flags = [
        "-shared",
        f"-Wl,-soname,{library.name}",
        f"-Wl,--version-script={core / 'forerun.map'}",
    ]
    flags += [
        f"-Wl,-z,max-page-size={platform.demands.page_bytes}",
        "-Wl,-z,noexecstack",
        "-Wl,--gc-sections",
        "-s",
    ]
    archives = [str(folder / "libforerun.a"), str(folder / f"lib{name}.a")]
    whole = ["-Wl,--whole-archive", *archives, "-Wl,--no-whole-archive"]
    run_tool([*toolchain.cxx, *flags, *whole, "-o", str(library)])
    check_demands(library, platform.demands)


def check_demands(library: Path, allowed: AllowedDemands) -> None:
    """Raise `CompileError` unless a library asks the system for no more than is allowed."""
    demands = read_demands(library)
    problems = []
    if others := sorted(set(demands.libraries) - allowed.libraries):
        problems.append(
            f"it needs the libraries {', '.join(others)}; allowed: {', '.join(sorted(allowed.libraries))}"
        )
    if others := sorted(set(demands.symbols) - allowed.symbols):
        problems.append(f"it takes symbols that not every device has: {', '.join(others)}")
    if demands.page_bytes % allowed.page_bytes:
        problems.append(f"it is aligned to {demands.page_bytes} bytes, not to {allowed.page_bytes}")
    if problems:
        raise CompileError(f"{library.name} would not load everywhere: {'; '.join(problems)}")
