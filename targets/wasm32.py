"""WebAssembly with 128-bit SIMD."""

from __future__ import annotations

from forerun.targets.portable import PORTABLE_RULES
from forerun.targets.target import Target

SIMD = Target(
    name="wasm32",
    summary="WebAssembly with SIMD, in browsers and Node: the portable kernels",
    arch="wasm32",
    llvm={"kind": "llvm", "mtriple": "wasm32-unknown-unknown", "mattr": ["+simd128"]},
    features=(),
    # There is none in SIMD that rounds once on every machine.
    fma=False,
    converts_half=False,
    ignores_nan=False,
    rules=PORTABLE_RULES,
    vector_registers=4,
    tile_rows=4,
    platform="wasm32",
)
