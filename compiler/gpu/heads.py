"""What kernels' sources begin with on each device: settings of its compiler, instructions that TVM has no name for."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

# A half float's 16 bits as float32; a number of the thread of the warp whose own number differs in one bit.
HALF, ACROSS = "forerun_half", "forerun_across"
# Number `index` of an array of half floats.
HALF_AT = "forerun_half_at"
# sums[0 … 3] += what a thread has of 16 columns × 8 rows: columns l / 4 and l / 4 + 8 of thread l, of each rows
# 2 (l % 4) and 2 (l % 4) + 1. It gives inputs 4 (l % 4) … + 3 of the same columns, and of row l / 4.
MULTIPLY = "forerun_multiply_tile"

_CUDA = f"""
#ifdef __CUDACC__
static __device__ __forceinline__ float {HALF}(unsigned bits) {{
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"((unsigned short)bits));
  return value;
}}
static __device__ __forceinline__ float {ACROSS}(float value, int bit) {{
  return __shfl_xor_sync(0xffffffffu, value, bit);
}}
static __device__ __forceinline__ void {MULTIPLY}(int *sums, unsigned first, unsigned second, unsigned row) {{
  asm("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {{%0, %1, %2, %3}}, {{%4, %5}}, {{%6}}, {{%0, %1, %2, %3}};"
      : "+r"(sums[0]), "+r"(sums[1]), "+r"(sums[2]), "+r"(sums[3])
      : "r"(first), "r"(second), "r"(row));
}}
#endif
"""
# Every version of OpenCL reads half floats from memory, whether or not it computes with them.
_OPENCL = f"""#pragma OPENCL FP_CONTRACT OFF
#define {HALF_AT}(halves, index) vload_half(index, (const __global half *)(halves))
"""
_WEBGPU = f"fn {HALF}(bits : u32) -> f32 {{ return unpack2x16float(bits).x; }}\n"
# OpenCL and Metal are kept from rounding a·b + c once where the kernel rounds twice; nvcc is told by a flag.
HEADS: Mapping[str, str] = MappingProxyType(
    {
        "cuda": _CUDA,
        "opencl": _OPENCL,
        "webgpu": _WEBGPU,
        "metal": "#pragma METAL fp math_mode(safe)\n#pragma METAL fp contract(off)\n",
    }
)
