// What kernels for Metal use of its language, for a C++ compiler to check their syntax and types.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#define kernel
#define device
#define constant const
#define threadgroup
#define thread

namespace metal {
using uint = uint32_t;
using ushort = uint16_t;
using uchar = uint8_t;
struct uint2 {
  uint x, y;
};
struct uint3 {
  uint x, y, z;
};
template <typename To, typename From>
To as_type(From value) {
  static_assert(sizeof(To) == sizeof(From), "the same bits");
  To result;
  std::memcpy(&result, &value, sizeof result);
  return result;
}
template <typename T>
T select(T otherwise, T chosen, bool condition) {
  return condition ? chosen : otherwise;
}
template <typename T>
T max(T a, T b) {
  return a > b ? a : b;
}
template <typename T>
T min(T a, T b) {
  return a < b ? a : b;
}
template <typename T>
T abs(T value) {
  return value < 0 ? -value : value;
}
inline float fma(float a, float b, float c) { return std::fma(a, b, c); }
inline float rint(float value) { return std::rint(value); }
inline float sqrt(float value) { return std::sqrt(value); }
enum class mem_flags { mem_none, mem_device, mem_threadgroup };
void threadgroup_barrier(mem_flags flags);
}  // namespace metal
