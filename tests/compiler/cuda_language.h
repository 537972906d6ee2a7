// What kernels for CUDA use of its language, for a C++ compiler: threads are fibers of the emulated driver.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

struct EmulatedIndex {
  unsigned x, y, z;
};

// The driver's: where the running thread is, and its waiting for the others.
extern thread_local EmulatedIndex threadIdx, blockIdx;
extern "C" void __syncthreads();
extern "C" float emulated_across(float value, int bit);
extern "C" void emulated_multiply_tile(int* sums, unsigned first, unsigned second, unsigned row);

#define __global__
#define __launch_bounds__(...)
#define __shared__ static thread_local
// TVM aligns arrays between the words of their declaration, where only nvcc allows it.
#define alignas(bytes)

using std::fma;
using std::max;
using std::min;
using std::rint;
using std::sqrt;

inline int __dp4a(int a, int b, int total) {
  for (int shift = 0; shift < 32; shift += 8) {
    total += static_cast<int8_t>(a >> shift) * static_cast<int8_t>(b >> shift);
  }
  return total;
}

inline float forerun_total(const float* sums) {
  float total = sums[threadIdx.x % 16];
  for (int apart = 8; apart > 0; apart /= 2) total += emulated_across(total, apart);
  return total;
}

inline float forerun_half(unsigned bits) {
  const auto stored = static_cast<uint16_t>(bits);
  _Float16 half;
  std::memcpy(&half, &stored, sizeof half);
  return static_cast<float>(half);
}

inline void forerun_multiply_tile(int* sums, unsigned first, unsigned second, unsigned row) {
  emulated_multiply_tile(sums, first, second, row);
}

// A kernel as the driver finds it in a module: its name, the bytes of each parameter as digits, and a call
// with parameters as cuLaunchKernel takes them.
struct EmulatedKernel {
  const char* name;
  const char* sizes;
  void (*run)(void** parameters);
};

template <auto kernel>
struct EmulatedCall;
template <typename... Types, void (*kernel)(Types...)>
struct EmulatedCall<kernel> {
  static constexpr char sizes[] = {'0' + sizeof(Types)..., 0};

  template <size_t... Places>
  static void unpack(void** parameters, std::index_sequence<Places...>) {
    kernel(*static_cast<Types*>(parameters[Places])...);
  }
  static void run(void** parameters) { unpack(parameters, std::index_sequence_for<Types...>()); }
};
