"""The native core as a static library for a platform."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from forerun.compiler.build import native_folder
from forerun.compiler.link import compile_c
from forerun.compiler.toolchain import Toolchain, run_tool
from forerun.errors import CompileError
from forerun.targets import Platform

# As in CMakeLists.txt; sections of their own let an app's linker drop what the app does not use.
_FLAGS = (
    "-std=c++17",
    "-DNDEBUG",
    "-ffp-contract=off",
    "-fvisibility=hidden",
    "-fno-exceptions",
    "-fno-rtti",
    "-ffunction-sections",
    "-fdata-sections",
)
# Sampling looks at every logit of the vocabulary: the one place where vectors pay.
_VECTOR_SOURCES = ("draw.cpp", "rank.cpp", "sample.cpp")
_VECTOR_FLAGS = ("-O3", "-fno-trapping-math")
# What runs when something is opened, and what calls others and waits for them: there size counts.
_SMALL_SOURCES = (
    *("bundle.cpp", "c_api.cpp", "c_generate.cpp", "c_measure.cpp", "c_text.cpp", "chat.cpp"),
    *("choice.cpp", "compiled.cpp", "compose.cpp", "cuda.cpp", "cuda_queue.cpp", "device.cpp"),
    *("device_draws.cpp", "device_program.cpp", "device_session.cpp", "json.cpp", "make_drafter.cpp"),
    *("manifest.cpp", "network_drafters.cpp", "opencl.cpp", "saved_sequence.cpp", "session.cpp", "spec.cpp"),
    *("text_check.cpp", "text_file.cpp", "trial.cpp", "webgpu.cpp", "webgpu_queue.cpp"),
)


def build_core(platform: Platform, toolchain: Toolchain, folder: Path, library: Path) -> None:
    """Compile the core's sources into `folder` and put them together as `library`.

    Raises:
        CompileError: the sources are missing, or a compiler refuses them.
    """
    native = native_folder()
    sources = core_sources(platform)

    def compile_one(entry: tuple[str, Path]) -> Path:
        name, source = entry
        target = (folder / name).with_suffix(".o")
        target.parent.mkdir(parents=True, exist_ok=True)
        speed = _VECTOR_FLAGS if source.name in _VECTOR_SOURCES else ("-O2",)
        if source.name in _SMALL_SOURCES:
            speed = ("-Os",)
        include = (f"-I{native / 'include'}", f"-I{native / 'src'}")
        flags = (*_FLAGS, *speed, *platform.compile_flags, *include)
        run_tool([*toolchain.cxx, *flags, "-c", str(source), "-o", str(target)])
        return target

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        objects = list(pool.map(compile_one, sources.items()))
    if platform.shim:
        shim = folder / "shim.c"
        shim.write_text(platform.shim, encoding="utf-8")
        objects.append(shim.with_suffix(".o"))
        compile_c(shim, native / "include", platform, objects[-1])
    archive(toolchain, objects, library)


def core_sources(platform: Platform) -> dict[str, Path]:
    """Return the core's files for a platform by their path in the sources; those of its variant take the others' place.

    Raises:
        CompileError: they are missing.
    """
    native = native_folder()
    folders = [native / "src", *([native / platform.variant] if platform.variant else [])]
    sources = {
        path.relative_to(folder).as_posix(): path
        for folder in folders
        for path in sorted(folder.rglob("*.cpp"))
    }
    if not sources:
        raise CompileError("the core's sources are missing from the installation; install forerun again")
    return sources


def archive(toolchain: Toolchain, objects: Iterable[Path], library: Path) -> None:
    """Put objects together as a static library."""
    run_tool([*toolchain.ar, "rcs", str(library), *map(str, objects)])
