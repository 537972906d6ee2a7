"""x86-64 processors, from the newest instruction sets down to what every one of them has."""

from __future__ import annotations

from dataclasses import replace

from forerun.targets.portable import PORTABLE_RULES, with_matmul
from forerun.targets.target import Target

VNNI_512 = Target(
    name="x86-64-avx512-vnni",
    summary="x86-64 with AVX-512 and VNNI (Ice Lake, Zen 4 and later): int8 dot products, 8-row tiles",
    arch="x86_64",
    llvm={
        "kind": "llvm",
        "mtriple": "x86_64-unknown-linux-gnu",
        # icelake-server names the instruction sets only; tuning for it keeps 512-bit registers in use.
        "mcpu": "icelake-server",
        "mattr": ["-prefer-256-bit"],
    },
    features=("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni", "fma", "f16c"),
    fma=True,
    rules=with_matmul("matmul_vnni"),
    weight_layout="quads",
    vector_registers=32,
    # Of 1, 4 and 16 KiB: the latter two were alike; calls of 1 to 8 rows took 0.55 to 0.76 of their
    # time without, on one thread of a Zen 5.
    prefetch_bytes=8192,
)

# Never run on hardware: proven by executing its tile instructions in software. That a group of inputs takes about half
# the instructions of VNNI's 8-row tiles (CONTRIBUTING.md) is a prediction, so only `forerun tune` turns the unit on.
AMX = replace(
    VNNI_512,
    name="x86-64-amx",
    summary="x86-64 with AMX (Sapphire Rapids and later): as without it; where tuned, 16-row tiles (only emulated)",
    llvm={**VNNI_512.llvm, "mattr": ["-prefer-256-bit", "+amx-tile", "+amx-int8"]},
    features=(*VNNI_512.features, "amx_tile", "amx_int8"),
    rules=with_matmul("matmul_amx", "matmul_vnni"),
    matrix_rows=16,
)

AVX2 = Target(
    name="x86-64-v3",
    summary="x86-64 with AVX2, FMA and F16C (since about 2013): byte products by vpmaddubsw",
    arch="x86_64",
    llvm={"kind": "llvm", "mtriple": "x86_64-unknown-linux-gnu", "mcpu": "x86-64-v3"},
    features=("avx2", "fma", "f16c"),
    fma=True,
    rules=with_matmul("matmul_avx2"),
    weight_layout="quads",
    tile_rows=4,
    prefetch_bytes=8192,
)

AVX_VNNI = replace(
    AVX2,
    name="x86-64-avx-vnni",
    summary="x86-64 with AVX2 and AVX-VNNI (Alder Lake, Zen 5 and later): int8 dot products on 256-bit registers",
    llvm={**AVX2.llvm, "mattr": ["+avxvnni"]},
    features=(*AVX2.features, "avx_vnni"),
    rules=with_matmul("matmul_avx_vnni"),
)

BASELINE = Target(
    name="x86-64",
    summary="any x86-64: the portable kernels with nothing beyond SSE2",
    arch="x86_64",
    llvm={"kind": "llvm", "mtriple": "x86_64-unknown-linux-gnu", "mcpu": "x86-64"},
    features=(),
    fma=False,
    vector_registers=4,
    rules=PORTABLE_RULES,
)
