// An array that grows, and says so when memory is refused.
#ifndef FORERUN_BUFFER_H
#define FORERUN_BUFFER_H

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <type_traits>

namespace forerun {

template <typename T>
class Buffer {
  static_assert(std::is_trivially_copyable<T>::value, "moved by realloc");

 public:
  Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { std::free(data_); }

  T* data() { return data_; }
  const T* data() const { return data_; }
  uint32_t count() const { return count_; }
  T& operator[](uint32_t index) { return data_[index]; }
  const T& operator[](uint32_t index) const { return data_[index]; }
  T& last() { return data_[count_ - 1]; }

  // What was there stays reserved.
  void clear() { count_ = 0; }
  void drop_last() { --count_; }
  void cut(uint32_t count) { count_ = count; }

  // False if memory is refused; what is there stays.
  bool reserve(uint64_t count) {
    if (count <= room_) return true;
    uint64_t room = room_ < 16 ? 16 : uint64_t{room_} * 2;
    if (room < count) room = count;
    if (room > UINT32_MAX || room > SIZE_MAX / sizeof(T)) return false;
    void* moved = std::realloc(data_, room * sizeof(T));
    if (moved == nullptr) return false;
    data_ = static_cast<T*>(moved);
    room_ = static_cast<uint32_t>(room);
    return true;
  }

  bool add(const T& value) {
    if (!reserve(uint64_t{count_} + 1)) return false;
    data_[count_++] = value;
    return true;
  }

  bool add_all(const T* values, uint64_t count) {
    if (!reserve(count_ + count)) return false;
    if (count > 0) std::memcpy(data_ + count_, values, count * sizeof(T));
    count_ += static_cast<uint32_t>(count);
    return true;
  }

 private:
  T* data_ = nullptr;
  uint32_t count_ = 0;
  uint32_t room_ = 0;
};

}  // namespace forerun

#endif
