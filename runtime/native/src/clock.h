// The clock of all measurements.
#ifndef FORERUN_CLOCK_H
#define FORERUN_CLOCK_H

#include <time.h>

#include <cstdint>

namespace forerun {

// Nanoseconds since some moment in the past. The system answers from memory, without a call into the kernel.
inline uint64_t now_ns() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<uint64_t>(time.tv_sec) * 1000000000u + static_cast<uint64_t>(time.tv_nsec);
}

}  // namespace forerun

#endif
