// Keys and values of all sequences and layers, in the layout that program.h describes.
//
// Slots are those of a sequence; where a layer with a window keeps them is not the caller's business, but
// which of them it still holds is: see oldest_kept in sequence.h.
#ifndef FORERUN_KV_CACHE_H
#define FORERUN_KV_CACHE_H

#include <memory>

#include "forerun/program.h"
#include "memory.h"
#include "status.h"

namespace forerun {

// Where keys and values are if a device has them: the cache's own memory is then used for what is fetched
// from there or sent there.
class RemoteCache {
 public:
  virtual ~RemoteCache() = default;
  virtual void move_row(int32_t sequence, int32_t from, int32_t to, int32_t first, int32_t last) = 0;
  virtual void copy_rows(int32_t from, int32_t to, int32_t rows) = 0;
  virtual Status fetch(int32_t sequence, int32_t rows) = 0;
  virtual Status send(int32_t sequence, int32_t rows) = 0;
};

class KvCache {
 public:
  // Memory of one sequence with so many positions.
  static uint64_t bytes(const forerun_program& program, int32_t capacity);

  // Room for `sequences` × `capacity` positions (rounded up to whole key blocks) in every layer.
  Status reserve(const forerun_program& program, int32_t sequences, int32_t capacity);

  void* const* keys() const { return keys_.as<void*>(); }
  void* const* values() const { return values_.as<void*>(); }
  int64_t capacity() const { return capacity_; }

  // Slots that a layer has: all, or with a window those of a ring, in which slot s lies at s mod ring.
  int64_t slots(int32_t layer) const;

  // Copies the row in slot `from` to slot `to` in layers first … last - 1.
  void move_row(int32_t sequence, int32_t from, int32_t to, int32_t first, int32_t last);

  // Copies slots 0 … rows - 1 of one sequence to another.
  void copy_rows(int32_t from, int32_t to, int32_t rows);

  // Keys and values are somewhere else from now on.
  void set_remote(RemoteCache* remote) { remote_ = remote; }

  // Brings slots 0 … rows - 1 of a sequence here, before row by row they are read; back, after they were
  // loaded.
  Status fetch(int32_t sequence, int32_t rows) const {
    return remote_ != nullptr ? remote_->fetch(sequence, rows) : FORERUN_OK;
  }
  Status send(int32_t sequence, int32_t rows) {
    return remote_ != nullptr ? remote_->send(sequence, rows) : FORERUN_OK;
  }

  // Bytes of a layer's keys and values of one slot.
  uint64_t row_bytes(int32_t layer) const;

  // Copies the keys and values of one slot to or from `row`: for each head the key [d], then the value [d],
  // as they are stored.
  void store_row(int32_t sequence, int32_t layer, int32_t slot, void* row) const;
  void load_row(int32_t sequence, int32_t layer, int32_t slot, const void* row);

  // Copies slots start … stop - 1 of a layer as floats, [Kv, stop - start, d].
  void read(int32_t sequence, int32_t layer, int32_t start, int32_t stop, float* keys, float* values) const;

 private:
  const forerun_program* program_ = nullptr;
  RemoteCache* remote_ = nullptr;
  int64_t capacity_ = 0;
  Region keys_;    // [L] pointers
  Region values_;  // [L] pointers
  std::unique_ptr<Region[]> layers_;
};

}  // namespace forerun

#endif
