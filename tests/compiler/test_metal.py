"""Metal's sources: a C++ compiler checks their syntax and types, given declarations of what they use."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from test_gpu_build import kernels_of

from forerun.compiler.gpu.build import device_sources
from forerun.compiler.schemes import AFFINE4, SCHEMES, Scheme
from forerun.targets.metal import METAL

LANGUAGE = Path(__file__).parent / "metal_language.h"
needs_compiler = pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")


def complaints(text: str, folder: Path) -> str:
    """Return what the compiler has against a source."""
    source = folder / "kernel.cpp"
    source.write_text(text.replace("#include <metal_stdlib>", f'#include "{LANGUAGE}"'))
    flags = ["-std=c++14", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-Wno-attributes"]
    unused = ["-Wno-unused-variable", "-Wno-unused-parameter", "-Wno-unknown-pragmas"]
    done = subprocess.run(["c++", *flags, *unused, str(source)], capture_output=True, text=True, check=False)
    return done.stderr if done.returncode else ""


@needs_compiler
@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=lambda scheme: scheme.name)
def test_kernels_of_a_large_decoder_are_metals_language(scheme: Scheme, tmp_path: Path) -> None:
    for name, source in device_sources(kernels_of(METAL, scheme), METAL).items():
        assert source.text.startswith("#pragma METAL fp math_mode(safe)\n#pragma METAL fp contract(off)\n")
        assert f"kernel void {name}_kernel(" in source.text
        assert not (told := complaints(source.text, tmp_path)), told


@needs_compiler
def test_mistakes_are_found(tmp_path: Path) -> None:
    source = next(iter(device_sources(kernels_of(METAL, AFFINE4), METAL).values())).text
    assert not complaints(source, tmp_path)
    for good, bad in (("(int)", "(integer)"), ("[[ buffer(0) ]]", "buffer(0)"), (");", ")")):
        assert good in source
        assert complaints(source.replace(good, bad, 1), tmp_path)
