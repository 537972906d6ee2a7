"""The CPU as the kernel describes it, and what that means for a build of llama.cpp."""

from __future__ import annotations

from pathlib import Path

from benchmarks.race.interface import Cpu

# ggml's option → the kernel's flags that it takes. Set one by one: on virtual machines the compiler's own look at
# the CPU (-march=native) can miss instruction sets that are there.
GGML_FEATURES = {
    "GGML_SSE42": ("sse4_2",),
    "GGML_AVX": ("avx",),
    "GGML_AVX2": ("avx2",),
    "GGML_FMA": ("fma",),
    "GGML_F16C": ("f16c",),
    "GGML_BMI2": ("bmi2",),
    "GGML_AVX_VNNI": ("avx_vnni",),
    "GGML_AVX512": ("avx512f", "avx512cd", "avx512vl", "avx512dq", "avx512bw"),
    "GGML_AVX512_VBMI": ("avx512vbmi",),
    "GGML_AVX512_VNNI": ("avx512_vnni",),
    "GGML_AVX512_BF16": ("avx512_bf16",),
}
GGML_AMX_FEATURES = {
    "GGML_AMX_TILE": ("amx_tile",),
    "GGML_AMX_INT8": ("amx_int8",),
    "GGML_AMX_BF16": ("amx_bf16",),
}


def read_cpu(path: Path = Path("/proc/cpuinfo")) -> Cpu:
    """The first CPU listed; a file without flags gives none, and builds for a plain x86-64."""
    values: dict[str, str] = {}
    for line in path.read_text().splitlines():
        name, _, value = line.partition(":")
        values.setdefault(name.strip(), value.strip())
    return Cpu(values.get("model name", "unknown"), frozenset(values.get("flags", "").split()))


def ggml_options(cpu: Cpu, amx: bool) -> tuple[str, ...]:
    """CMake arguments that switch on exactly what the CPU has, with or without its tile unit."""
    chosen = {name: cpu.flags.issuperset(needed) for name, needed in GGML_FEATURES.items()}
    chosen |= {name: amx and cpu.flags.issuperset(needed) for name, needed in GGML_AMX_FEATURES.items()}
    return tuple(f"-D{name}={'ON' if is_on else 'OFF'}" for name, is_on in chosen.items())


def expected_system_info(cpu: Cpu) -> tuple[str, ...]:
    """What `llama_print_system_info` must list, by ggml's names without the prefix."""
    return tuple(
        name.removeprefix("GGML_")
        for name, needed in GGML_FEATURES.items()
        if cpu.flags.issuperset(needed) and name != "GGML_SSE42"
    )
