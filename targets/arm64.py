"""64-bit Arm processors: phones, Arm laptops and servers.

All of them store weights as x86-64 does, so that one weights file serves a bundle for both, and with the same fused
multiply-adds they give the same bits. Run under an emulator only: their numbers are not measured.
"""

from __future__ import annotations

from dataclasses import replace

from forerun.targets.portable import with_matmul
from forerun.targets.target import Target

_TRIPLE = "aarch64-unknown-linux-gnu"

NEON = Target(
    name="arm64",
    summary="any 64-bit Arm with NEON: byte products by smull (only emulated)",
    arch="aarch64",
    llvm={"kind": "llvm", "mtriple": _TRIPLE, "mattr": ["+neon"]},
    features=("asimd",),
    fma=True,
    rules=with_matmul("matmul_neon"),
    weight_layout="quads",
    # 32 registers of 4 lanes.
    vector_registers=8,
    tile_rows=4,
    platform="linux-arm64",
)

DOTPROD = replace(
    NEON,
    name="arm64-dotprod",
    summary="64-bit Arm with dot products (Cortex-A55 and A75 of 2017 and later, Apple A13 and later) (only emulated)",
    llvm={**NEON.llvm, "mattr": ["+neon", "+dotprod"]},
    features=("asimd", "asimddp"),
    rules=with_matmul("matmul_dotprod"),
)

I8MM = replace(
    DOTPROD,
    name="arm64-i8mm",
    summary="64-bit Arm with I8MM (Armv8.6: Cortex-X2 and A510, Neoverse V1, Apple M2 and later) (only emulated)",
    llvm={**NEON.llvm, "mattr": ["+neon", "+dotprod", "+i8mm"]},
    features=("asimd", "asimddp", "i8mm"),
    rules=with_matmul("matmul_i8mm"),
)

# The same kernels as Mach-O objects. The processor is Apple's "arm64", whatever Linux calls it.
IOS_NEON = replace(
    NEON,
    name="ios-arm64",
    summary="iPhones and iPads: byte products by smull (only compiled)",
    arch="arm64",
    llvm={**NEON.llvm, "mtriple": "arm64-apple-ios16.0.0"},
    platform="ios-arm64",
)

IOS_DOTPROD = replace(
    DOTPROD,
    name="ios-arm64-dotprod",
    summary="iPhones and iPads since the A13 of 2019: dot products (only compiled)",
    arch="arm64",
    llvm={**DOTPROD.llvm, "mtriple": "arm64-apple-ios16.0.0"},
    platform="ios-arm64",
)
