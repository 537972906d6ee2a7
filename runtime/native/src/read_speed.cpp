#include "read_speed.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <cstring>

#include "clock.h"
#include "cpu.h"

namespace forerun {
namespace {

constexpr uint64_t kLargePage = 2u << 20;
constexpr uint64_t kStep = 512;  // bytes of one turn: eight registers of 64 bytes
// Far enough ahead that memory keeps busy; measured best of 0, 1, 2, 4 and 8 KiB on one and two threads.
constexpr uint64_t kAhead = 8192;

// Sums up whole steps; with several accumulators additions never wait for one another. The sum is returned so
// that no compiler leaves the reads out.
template <typename Vector>
__attribute__((always_inline)) inline uint64_t sum_steps(const uint8_t* from, uint64_t bytes) {
  constexpr uint64_t kLoads = kStep / sizeof(Vector);
  Vector sums[8] = {};
  for (uint64_t at = 0; at + kStep <= bytes; at += kStep) {
    for (uint64_t line = 0; line < kStep; line += kAlignment) __builtin_prefetch(from + at + kAhead + line);
    for (uint64_t load = 0; load < kLoads; ++load) {
      sums[load % 8] += *reinterpret_cast<const Vector*>(from + at + load * sizeof(Vector));
    }
  }
  for (int i = 1; i < 8; ++i) sums[0] += sums[i];
  uint64_t total = 0;
  for (uint64_t lane = 0; lane < sizeof(Vector) / 8; ++lane) total += sums[0][lane];
  return total;
}

typedef uint64_t Vector16 __attribute__((vector_size(16), may_alias));

uint64_t sum_portable(const uint8_t* from, uint64_t bytes) {
  return sum_steps<Vector16>(from, bytes);
}

#if defined(__x86_64__)
typedef uint64_t Vector32 __attribute__((vector_size(32), may_alias));
typedef uint64_t Vector64 __attribute__((vector_size(64), may_alias));

__attribute__((target("avx2"))) uint64_t sum_avx2(const uint8_t* from, uint64_t bytes) {
  return sum_steps<Vector32>(from, bytes);
}

__attribute__((target("avx512f"))) uint64_t sum_avx512(const uint8_t* from, uint64_t bytes) {
  return sum_steps<Vector64>(from, bytes);
}
#endif

using Sum = uint64_t (*)(const uint8_t* from, uint64_t bytes);

// The widest that this processor has.
Sum find_sum() {
#if defined(__x86_64__)
  if (cpu_has("avx512f")) return sum_avx512;
  if (cpu_has("avx2")) return sum_avx2;
#endif
  return sum_portable;
}

struct Work {
  uint8_t* data;
  uint64_t share;  // bytes of each thread
  Sum sum;
  uint64_t* sums;  // [threads, kAlignment / 8], a cache line each
};

void fill(void* argument, int32_t tid) {
  const Work& work = *static_cast<Work*>(argument);
  std::memset(work.data + tid * work.share, tid + 1, work.share);
}

void read(void* argument, int32_t tid) {
  const Work& work = *static_cast<Work*>(argument);
  work.sums[tid * (kAlignment / sizeof(uint64_t))] += work.sum(work.data + tid * work.share, work.share);
}

// Own memory of `bytes` bytes at a large page's start.
Status reserve_large(Region* region, uint64_t bytes, uint8_t** data) {
  FORERUN_TRY(region->reserve(1, bytes + 2 * kLargePage, "a measurement"));
  const uint64_t start = reinterpret_cast<uintptr_t>(region->as<uint8_t>());
  *data = region->as<uint8_t>() + (round_up(start, kLargePage) - start);
#if defined(__linux__)
  // Where the system has no large pages for us, small ones are what a kernel would get too.
  madvise(*data, round_up(bytes, kLargePage), MADV_HUGEPAGE);
#endif
  return FORERUN_OK;
}

}  // namespace

Status measure_read(Session& session, bool weights, uint64_t bytes, int32_t passes, uint64_t* pass_ns) {
  const uint64_t threads = session.options.threads;
  const uint64_t share = bytes / threads / kStep * kStep;
  const uint64_t held = session.program().weights_bytes;
  if (passes < 1 || share == 0 || (weights && bytes > held)) {
    return fail(
        FORERUN_INVALID_ARGUMENT,
        "cannot read %llu bytes %d times with %d threads; at least 1 time, %llu bytes a thread, and at "
        "most the %llu bytes of the weights where those are read",
        static_cast<unsigned long long>(bytes), passes, session.options.threads,
        static_cast<unsigned long long>(kStep), static_cast<unsigned long long>(held));
  }
  Region own, sums;
  FORERUN_TRY(sums.reserve(threads, kAlignment, "a measurement"));
  Work work{const_cast<uint8_t*>(session.bundle->weights()), share, find_sum(), sums.as<uint64_t>()};
  if (!weights) {
    FORERUN_TRY(reserve_large(&own, bytes, &work.data));
    session.team->run(fill, &work);
  }
  session.team->run(read, &work);  // the first pass finds what was just written in the caches
  for (int32_t pass = 0; pass < passes; ++pass) {
    const uint64_t begin = now_ns();
    session.team->run(read, &work);
    pass_ns[pass] = now_ns() - begin;
  }
  return FORERUN_OK;
}

}  // namespace forerun
