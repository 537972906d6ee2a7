"""CUDA without a GPU, for tests: a driver that the processor plays, and an nvcc whose cubins it can load.

What is emulated is what a kernel's source says and what cuda.h says of the driver. Nothing here knows what a GPU's
compiler, its memory or its clocks do.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
_FLAGS = ["-std=c++17", "-O2", "-fPIC", "-shared", "-U_FORTIFY_SOURCE"]
_KERNEL = re.compile(r'extern "C" __global__ void .*?(\w+_kernel)\([^)]*\) \{')
_REPORT = """\
ptxas info    : Compiling entry function '{name}' for 'emulated'
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 0 registers
"""


def build_emulation(folder: Path) -> dict[str, str]:
    """Build the driver and the compiler in a folder; return the environment in which both are taken for CUDA's.

    The real nvcc compiles the driver, since it knows where cuda.h is.
    """
    driver = [
        *("--cudart", "none", "-std=c++17", "-O2", "-shared"),
        "-Xlinker",
        "-soname=libemulated_cuda.so",
    ]
    warnings = "-fPIC,-U_FORTIFY_SOURCE,-Wall,-Wextra,-Werror"
    source, library = HERE / "cuda_driver.cpp", folder / "libemulated_cuda.so"
    _run(["nvcc", *driver, "-Xcompiler", warnings, str(source), "-o", str(library)])
    (folder / "libcuda.so.1").symlink_to(library)
    tools = folder / "bin"
    tools.mkdir()
    compiler = tools / "nvcc"
    compiler.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" "{library}" "$@"\n')
    compiler.chmod(0o755)
    paths = {"PATH": str(tools), "LD_LIBRARY_PATH": str(folder)}
    return {name: os.pathsep.join((path, os.environ.get(name, ""))) for name, path in paths.items()}


def compile_module(driver: Path, source: Path, built: Path) -> str:
    """Compile a file of kernels to a module of the emulated driver; return what nvcc's assembler would report."""
    text = source.read_text(encoding="utf-8")
    names = _KERNEL.findall(text)
    calls = "\n".join(
        f'  {{"{name}", EmulatedCall<{name}>::sizes, EmulatedCall<{name}>::run}},' for name in names
    )
    table = f'extern "C" const EmulatedKernel emulated_kernels[] = {{\n{calls}\n  {{}}}};\n'
    path = built.with_suffix(".cpp")
    path.write_text(f'#include "{HERE / "cuda_language.h"}"\n{text}\n{table}', encoding="utf-8")
    options = ["-march=native", "-fno-gnu-unique", "-ffp-contract=off", "-Wno-unknown-pragmas"]
    _run(["c++", *_FLAGS, *options, str(path), str(driver), "-o", str(built)])
    return "".join(_REPORT.format(name=name) for name in names)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{shutil.which(command[0])} failed:\n{done.stderr}")


if __name__ == "__main__":
    _driver, *_arguments = sys.argv[1:]
    _built = Path(_arguments[_arguments.index("-o") + 1])
    sys.stderr.write(compile_module(Path(_driver), Path(_arguments[-1]), _built))
