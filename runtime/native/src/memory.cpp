#include "memory.h"

#if !defined(FORERUN_SANITIZE) && !defined(__wasm__)
#include <sys/mman.h>
#define FORERUN_MAPS_PAGES 1
#endif

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace forerun {
namespace {

// Beyond what any processor can address; keeps the arithmetic of callers and mmap from wrapping.
constexpr uint64_t kMaxBytes = uint64_t{1} << 46;

#ifdef FORERUN_MAPS_PAGES

void* take(size_t bytes) {
  void* data =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return data == MAP_FAILED ? nullptr : data;
}

void give_back(void* data, size_t bytes) {
  munmap(data, bytes);
}

#else

void* take(size_t bytes) {
  void* data = nullptr;
  if (posix_memalign(&data, kAlignment, bytes) != 0) return nullptr;
  std::memset(data, 0, bytes);
  return data;
}

void give_back(void* data, size_t) {
  std::free(data);
}

#endif

}  // namespace

Region::~Region() {
  if (data_ != nullptr) give_back(data_, bytes_);
}

Status Region::reserve(uint64_t count, uint64_t bytes, const char* what) {
  const bool sound = bytes == 0 || count <= std::min<uint64_t>(kMaxBytes, SIZE_MAX) / bytes;
  const uint64_t wanted = sound ? std::max<uint64_t>(count * bytes, 1) : kMaxBytes;
  data_ = sound ? take(wanted) : nullptr;
  if (data_ == nullptr) {
    return fail(FORERUN_OUT_OF_MEMORY,
                "no memory for %s (%llu MB); use fewer sequences, a smaller capacity or fewer threads", what,
                static_cast<unsigned long long>(wanted >> 20));
  }
  bytes_ = wanted;
  return FORERUN_OK;
}

}  // namespace forerun
