"""What a platform is: the system that programs and the core are compiled and linked for. Data, as targets are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from forerun.targets.android import ANDROID_LIBRARIES, ANDROID_PAGE_BYTES, ANDROID_SHIM, ANDROID_SYMBOLS


@dataclass(frozen=True)
class AllowedDemands:
    """Libraries and their symbols that are there on every device, and the alignment that all devices can map."""

    libraries: frozenset[str]
    symbols: frozenset[str]
    page_bytes: int


@dataclass(frozen=True)
class Platform:
    """One system on one processor architecture.

    Attributes:
        name: what users write after `forerun package --target`.
        summary: one line for `forerun list`, with how it is checked.
        machine: what `uname -m` says there, with `uname -s` in `system`: there the machine's own compiler serves.
        system: see `machine`.
        gcc: prefix of the GNU cross compilers' names, empty where there are none.
        zig: the target triple for the compiler in the Python package ziglang.
        programs: name of the platform whose compiled programs it takes: its own or one with the same object format.
        compile_flags: for every C and C++ file.
        links: False where forerun makes object files only, for the app's own tools to link.
        core: False where the core does not run yet: packages hold the program and the weights alone.
        hint: what to install if no compiler is found.
        shim: C code that is part of the core there.
        variant: folder beside the core's sources whose files take the place of those of the same names.
        module: packages hold modules of core and programs for JavaScript, and no libraries.
        demands: what a shared library for it may ask of the system; packages hold one where that is given.
    """

    name: str
    summary: str
    machine: str
    system: str
    zig: str
    programs: str
    hint: str
    gcc: str = ""
    compile_flags: tuple[str, ...] = ("-fPIC",)
    links: bool = True
    core: bool = True
    shim: str = ""
    variant: str = ""
    module: bool = False
    demands: AllowedDemands | None = None


_ZIG = "pip install ziglang"

ALL_PLATFORMS: tuple[Platform, ...] = (
    Platform(
        name="linux-x86-64",
        summary="Linux on x86-64: runs here",
        machine="x86_64",
        system="Linux",
        gcc="x86_64-linux-gnu-",
        zig="x86_64-linux-gnu.2.28",
        programs="linux-x86-64",
        hint=f"apt install gcc g++, or {_ZIG}",
    ),
    Platform(
        name="linux-arm64",
        summary="Linux on 64-bit Arm: only emulated (qemu)",
        machine="aarch64",
        system="Linux",
        gcc="aarch64-linux-gnu-",
        zig="aarch64-linux-gnu.2.28",
        programs="linux-arm64",
        hint=f"apt install gcc-aarch64-linux-gnu g++-aarch64-linux-gnu libc6-dev-arm64-cross, or {_ZIG}",
    ),
    Platform(
        name="android-arm64",
        summary="Android on 64-bit Arm: version 10 and later: only linked and its symbols checked, run nowhere",
        machine="aarch64",
        system="Android",
        # No C library of Android's comes with it: musl's headers describe the same kernel's structures. What is left
        # to the system's libraries is checked symbol by symbol.
        zig="aarch64-linux-musl",
        programs="linux-arm64",
        compile_flags=("-fPIC", "-fno-builtin-bcmp"),
        shim=ANDROID_SHIM,
        demands=AllowedDemands(ANDROID_LIBRARIES, ANDROID_SYMBOLS, ANDROID_PAGE_BYTES),
        hint=_ZIG,
    ),
    Platform(
        name="ios-arm64",
        summary="iOS: the program as Mach-O objects, only compiled",
        machine="arm64",
        system="iOS",
        zig="aarch64-ios",
        programs="ios-arm64",
        compile_flags=("-fPIC", "-ffreestanding"),
        links=False,
        core=False,
        hint=_ZIG,
    ),
    Platform(
        name="wasm32",
        summary="WebAssembly with SIMD, for browsers and Node: run in Node and headless Chromium",
        machine="wasm32",
        system="wasm",
        zig="wasm32-wasi",
        programs="wasm32",
        # Two modules are linked of one set of objects; the one with threads takes atomics and bulk memory.
        compile_flags=("-msimd128", "-matomics", "-mbulk-memory"),
        links=False,
        variant="wasm",
        module=True,
        hint=_ZIG,
    ),
)
PLATFORMS: Mapping[str, Platform] = MappingProxyType({platform.name: platform for platform in ALL_PLATFORMS})
