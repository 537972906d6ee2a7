#include "cpu.h"

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace forerun {
namespace {

bool same_name(const char* left, const char* right) {
  while (true) {
    while (*left == '_') ++left;
    while (*right == '_') ++right;
    if (*left != *right) return false;
    if (*left == '\0') return true;
    ++left;
    ++right;
  }
}

#if defined(__x86_64__)

enum Register { kEax, kEbx, kEcx, kEdx };

// Register state the system must save before a feature can be used: bits of XCR0.
constexpr uint64_t kNoState = 0;
constexpr uint64_t kAvxState = 0x6;
constexpr uint64_t kAvx512State = 0xE6;
constexpr uint64_t kAmxState = 0x60000;

struct Feature {
  const char* name;
  uint32_t leaf;
  uint32_t subleaf;
  Register where;
  int bit;
  uint64_t state;
};

// Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2A, CPUID.
const Feature kFeatures[] = {
    {"sse2", 1, 0, kEdx, 26, kNoState},
    {"sse3", 1, 0, kEcx, 0, kNoState},
    {"pni", 1, 0, kEcx, 0, kNoState},
    {"ssse3", 1, 0, kEcx, 9, kNoState},
    {"sse4_1", 1, 0, kEcx, 19, kNoState},
    {"sse4_2", 1, 0, kEcx, 20, kNoState},
    {"popcnt", 1, 0, kEcx, 23, kNoState},
    {"fma", 1, 0, kEcx, 12, kAvxState},
    {"f16c", 1, 0, kEcx, 29, kAvxState},
    {"avx", 1, 0, kEcx, 28, kAvxState},
    {"bmi1", 7, 0, kEbx, 3, kNoState},
    {"avx2", 7, 0, kEbx, 5, kAvxState},
    {"bmi2", 7, 0, kEbx, 8, kNoState},
    {"avx512f", 7, 0, kEbx, 16, kAvx512State},
    {"avx512dq", 7, 0, kEbx, 17, kAvx512State},
    {"avx512ifma", 7, 0, kEbx, 21, kAvx512State},
    {"avx512cd", 7, 0, kEbx, 28, kAvx512State},
    {"avx512bw", 7, 0, kEbx, 30, kAvx512State},
    {"avx512vl", 7, 0, kEbx, 31, kAvx512State},
    {"avx512vbmi", 7, 0, kEcx, 1, kAvx512State},
    {"avx512_vbmi2", 7, 0, kEcx, 6, kAvx512State},
    {"avx512_vnni", 7, 0, kEcx, 11, kAvx512State},
    {"avx512_bitalg", 7, 0, kEcx, 12, kAvx512State},
    {"avx512_vpopcntdq", 7, 0, kEcx, 14, kAvx512State},
    {"amx_bf16", 7, 0, kEdx, 22, kAmxState},
    {"avx512_fp16", 7, 0, kEdx, 23, kAvx512State},
    {"amx_tile", 7, 0, kEdx, 24, kAmxState},
    {"amx_int8", 7, 0, kEdx, 25, kAmxState},
    {"avx_vnni", 7, 1, kEax, 4, kAvxState},
    {"avx512_bf16", 7, 1, kEax, 5, kAvx512State},
    {"avx_vnni_int8", 7, 1, kEdx, 4, kAvxState},
    {"movbe", 1, 0, kEcx, 22, kNoState},
    {"abm", 0x80000001, 0, kEcx, 5, kNoState},
    {"lzcnt", 0x80000001, 0, kEcx, 5, kNoState},
};

// Which register state the system saves; 0 where it does not even say.
uint64_t saved_state() {
  uint32_t eax, ebx, ecx, edx;
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0 || (ecx & (1u << 27)) == 0) return 0;
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (uint64_t{high} << 32) | low;
}

bool has(const Feature& feature) {
  uint32_t values[4];
  if (__get_cpuid_count(feature.leaf, feature.subleaf, &values[kEax], &values[kEbx], &values[kEcx],
                        &values[kEdx]) == 0) {
    return false;
  }
  const bool present = (values[feature.where] >> feature.bit) & 1;
  return present && (saved_state() & feature.state) == feature.state;
}

#elif defined(__aarch64__) && defined(__linux__)

struct Feature {
  const char* name;
  int which;  // 1: AT_HWCAP, 2: AT_HWCAP2
  int bit;
};

// Linux, arch/arm64/include/uapi/asm/hwcap.h.
const Feature kFeatures[] = {
    {"fp", 1, 0},   {"asimd", 1, 1}, {"fphp", 1, 9},  {"asimdhp", 1, 10}, {"asimddp", 1, 20},
    {"sve", 1, 22}, {"sve2", 2, 1},  {"i8mm", 2, 13}, {"bf16", 2, 14},    {"sme", 2, 23},
};

bool has(const Feature& feature) {
  const unsigned long bits = getauxval(feature.which == 1 ? AT_HWCAP : AT_HWCAP2);
  return (bits >> feature.bit) & 1;
}

#else

struct Feature {
  const char* name;
};
const Feature kFeatures[] = {{"none"}};

bool has(const Feature&) {
  return false;
}

#endif

}  // namespace

const char* cpu_architecture() {
#if defined(__x86_64__)
  return "x86_64";
#elif defined(__aarch64__)
  return "aarch64";
#elif defined(__wasm__)
  return "wasm32";
#else
  return "unknown";
#endif
}

bool cpu_has(const char* feature) {
  for (const Feature& known : kFeatures) {
    if (same_name(known.name, feature)) return has(known);
  }
  return false;
}

Status cpu_enable(const char* feature) {
#if defined(__x86_64__)
  // Linux, Documentation/arch/x86/xstate.rst: the tiles' registers are large, so a process has to ask for
  // them.
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  if (!same_name(feature, "amx_tile")) return FORERUN_OK;
  if (syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0) return FORERUN_OK;
  return fail(
      FORERUN_CPU_FEATURE,
      "the system does not let this process use the processor's amx_tile: %s; Linux allows it from 5.16 "
      "on, unless a sandbox forbids it or a thread's alternate signal stack is too small; "
      "compile the bundle with --target x86-64-avx512-vnni",
      std::strerror(errno));
#else
  (void)feature;
  return FORERUN_OK;
#endif
}

}  // namespace forerun
