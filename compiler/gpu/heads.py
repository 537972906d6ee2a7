"""What kernels' sources begin with on each device: settings of its compiler, instructions that TVM has no name for."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

# A half float's 16 bits as float32.
HALF = "forerun_half"
# Number `index` of an array of half floats.
HALF_AT = "forerun_half_at"
# Word `index` of packed weights that are an image.
TEXEL = "forerun_texel"
# Four signed bytes of each of two words multiplied, and added to a third number.
DOT = "forerun_dot"
# The sum of 16 shared numbers, as `GpuWriter.sum_of` has it: of pairs 8 apart, of pairs of those 4 apart …
TOTAL = "forerun_total"
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
// All threads of a warp call it, and a + b is b + a: each has the same sum.
static __device__ __forceinline__ float {TOTAL}(const float *sums) {{
  float total = sums[threadIdx.x % 16];
#pragma unroll
  for (int apart = 8; apart > 0; apart /= 2) total += __shfl_xor_sync(0xffffffffu, total, apart);
  return total;
}}
static __device__ __forceinline__ void {MULTIPLY}(int *sums, unsigned first, unsigned second, unsigned row) {{
  asm("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {{%0, %1, %2, %3}}, {{%4, %5}}, {{%6}}, {{%0, %1, %2, %3}};"
      : "+r"(sums[0]), "+r"(sums[1]), "+r"(sums[2]), "+r"(sums[3])
      : "r"(first), "r"(second), "r"(row));
}}
#endif
"""
# Every version of OpenCL reads half floats from memory, whether or not it computes with them. What else a device has,
# OpenCL C 3.0 says by macros (the core asks for that version where the device has it), and gives the same bits. All
# kernels' sources are compiled as one.
_OPENCL = f"""#pragma OPENCL FP_CONTRACT OFF
#ifndef {HALF_AT}
#define {HALF_AT}(halves, index) vload_half(index, (const __global half *)(halves))
#define {TEXEL}(words, index) read_imageui(words, index).x

#ifdef __opencl_c_integer_dot_product_input_4x8bit_packed
#define {DOT}(a, b, total) ((total) + dot_4x8packed_ss_int(as_uint(a), as_uint(b)))
#else
// By shifts: char4 converted to int4 takes PoCL 1.6 times as long at 8 rows.
#define FORERUN_BYTE(word, left) ((int)((uint)(word) << left) >> 24)
#define FORERUN_PRODUCT(a, b, left) FORERUN_BYTE(a, left) * FORERUN_BYTE(b, left)
static inline int {DOT}(int a, int b, int total) {{
  total += FORERUN_PRODUCT(a, b, 24) + FORERUN_PRODUCT(a, b, 16);
  return total + FORERUN_PRODUCT(a, b, 8) + FORERUN_PRODUCT(a, b, 0);
}}
#endif

static inline float {TOTAL}(const __local float *sums) {{
#if __OPENCL_C_VERSION__ >= 300 && defined(__opencl_c_subgroups) && defined(cl_khr_subgroup_shuffle)
  const uint size = get_sub_group_size();
  if (size >= 16 && (size & (size - 1)) == 0) {{
    float shuffled = sums[get_sub_group_local_id() % 16];
    for (uint apart = 8; apart > 0; apart /= 2) shuffled += sub_group_shuffle_xor(shuffled, apart);
    return shuffled;
  }}
#endif
  float8 eight = vload8(0, sums) + vload8(1, sums);
  float4 four = eight.lo + eight.hi;
  float2 two = four.lo + four.hi;
  return two.x + two.y;
}}
#endif
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
