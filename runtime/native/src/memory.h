// Zeroed memory that a session reserves once; pages cost nothing until they are touched.
#ifndef FORERUN_MEMORY_H
#define FORERUN_MEMORY_H

#include <cstddef>
#include <cstdint>

#include "status.h"

namespace forerun {

// Every array given to a program starts on a multiple of this many bytes.
constexpr size_t kAlignment = 64;

constexpr uint64_t round_up(uint64_t value, uint64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

class Region {
 public:
  Region() = default;
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;
  ~Region();

  // Reserves count × bytes zeroed bytes; `what` names them in the error text.
  Status reserve(uint64_t count, uint64_t bytes, const char* what);

  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace forerun

#endif
