"""x86-64 processors, from the newest instruction sets down to what every one of them has."""

from __future__ import annotations

from forerun.targets.target import Target

PORTABLE_RULES = {
    "embed": ("embed_rows",),
    "norm": ("rms_norm",),
    "quantize": ("quantize_rows",),
    "matmul": ("matmul_grouped", "matmul_float"),
    "matmul_swiglu": ("matmul_grouped", "matmul_float"),
    "swiglu": ("swiglu",),
    "rope_store": ("rope_store",),
    "cached_attention": ("attention_blocked",),
}

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
    rules={
        **PORTABLE_RULES,
        "matmul": ("matmul_vnni", "matmul_grouped", "matmul_float"),
        "matmul_swiglu": ("matmul_vnni", "matmul_grouped", "matmul_float"),
    },
    weight_layout="vnni",
    vector_registers=32,
    # Of 1, 4 and 16 KiB: the latter two were alike; calls of 1 to 8 rows took 0.55 to 0.76 of their
    # time without, on one thread of a Zen 5.
    prefetch_bytes=8192,
)

AVX2 = Target(
    name="x86-64-v3",
    summary="x86-64 with AVX2, FMA and F16C (since about 2013): the portable kernels, vectorized by LLVM",
    arch="x86_64",
    llvm={"kind": "llvm", "mtriple": "x86_64-unknown-linux-gnu", "mcpu": "x86-64-v3"},
    features=("avx2", "fma", "f16c"),
    fma=True,
    rules=PORTABLE_RULES,
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
