#include "kv_cache.h"

#include <algorithm>
#include <cstring>
#include <new>

namespace forerun {
namespace {

// A device's words hold two half floats each.
struct HalfPair {
  uint16_t low, high;
};

bool has_pairs(const forerun_program& program) {
  return program.device != nullptr && program.kv_element_bytes == sizeof(uint16_t);
}

int64_t element_bytes(const forerun_program& program) {
  return has_pairs(program) ? sizeof(HalfPair) : program.kv_element_bytes;
}

// Calls visit(element) with an element of the type that the cache has.
template <typename Visit>
void with_element(const forerun_program& program, Visit visit) {
  if (has_pairs(program)) {
    visit(HalfPair{});
  } else if (program.kv_element_bytes == sizeof(uint16_t)) {
    visit(uint16_t{});
  } else {
    visit(float{});
  }
}

// Where one head of one sequence lies in a layer, in elements. Keys and values of a head are equally large.
struct Head {
  int64_t capacity;
  int64_t elements;  // of a slot's key, or value
  int64_t base;

  int64_t key(int64_t slot, int64_t dimension) const {
    slot %= capacity;
    return base + slot / FORERUN_KEY_BLOCK * elements * FORERUN_KEY_BLOCK + dimension * FORERUN_KEY_BLOCK +
           slot % FORERUN_KEY_BLOCK;
  }
  int64_t value(int64_t slot) const { return base + slot % capacity * elements; }
};

int64_t slots_of(const forerun_layer& layer, int64_t capacity) {
  return layer.ring > 0 ? std::min<int64_t>(layer.ring, capacity) : capacity;
}

// A key and a value of every head.
uint64_t slot_bytes(const forerun_program& program, int32_t layer) {
  const forerun_layer& sizes = program.layer[layer];
  return 2 * static_cast<uint64_t>(sizes.kv_heads) * static_cast<uint64_t>(sizes.head_dim) *
         static_cast<uint64_t>(program.kv_element_bytes);
}

Head head_of(const forerun_program& program, int32_t layer, int64_t capacity, int32_t sequence,
             int32_t head) {
  const forerun_layer& sizes = program.layer[layer];
  const int64_t number = static_cast<int64_t>(sequence) * sizes.kv_heads + head;
  const int64_t elements = has_pairs(program) ? sizes.head_dim / 2 : sizes.head_dim;
  return {capacity, elements, number * capacity * elements};
}

template <typename Element>
void move_in_head(const Head& head, Element* keys, Element* values, int32_t from, int32_t to) {
  for (int64_t i = 0; i < head.elements; ++i) keys[head.key(to, i)] = keys[head.key(from, i)];
  std::memcpy(values + head.value(to), values + head.value(from), head.elements * sizeof(Element));
}

template <typename Element>
void store_head(const Head& head, const Element* keys, const Element* values, int32_t slot, Element* row) {
  for (int64_t i = 0; i < head.elements; ++i) row[i] = keys[head.key(slot, i)];
  std::memcpy(row + head.elements, values + head.value(slot), head.elements * sizeof(Element));
}

template <typename Element>
void load_head(const Head& head, const Element* row, int32_t slot, Element* keys, Element* values) {
  for (int64_t i = 0; i < head.elements; ++i) keys[head.key(slot, i)] = row[i];
  std::memcpy(values + head.value(slot), row + head.elements, head.elements * sizeof(Element));
}

// IEEE 754 binary16 to binary32, exact.
float to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  uint32_t exponent = (half >> 10) & 0x1F;
  uint32_t fraction = half & 0x3FF;
  uint32_t bits;
  if (exponent == 0x1F) {
    bits = sign | 0x7F800000 | (fraction << 13);
  } else if (exponent != 0) {
    bits = sign | ((exponent + 112) << 23) | (fraction << 13);
  } else {
    const float small = static_cast<float>(fraction) * 0x1p-24f;  // a denormal half is a normal float
    std::memcpy(&bits, &small, sizeof bits);
    bits |= sign;
  }
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

float* put_floats(uint16_t half, float* out) {
  *out = to_float(half);
  return out + 1;
}

float* put_floats(float value, float* out) {
  *out = value;
  return out + 1;
}

float* put_floats(HalfPair pair, float* out) {
  return put_floats(pair.high, put_floats(pair.low, out));
}

template <typename Element>
void read_head(const Head& head, const Element* keys, const Element* values, int32_t start, int32_t stop,
               float* key_out, float* value_out) {
  for (int32_t slot = start; slot < stop; ++slot) {
    for (int64_t i = 0; i < head.elements; ++i) {
      key_out = put_floats(keys[head.key(slot, i)], key_out);
      value_out = put_floats(values[head.value(slot) + i], value_out);
    }
  }
}

}  // namespace

Status KvCache::reserve(const forerun_program& program, int32_t sequences, int32_t capacity) {
  program_ = &program;
  capacity_ = static_cast<int64_t>(round_up(static_cast<uint64_t>(capacity), FORERUN_KEY_BLOCK));
  FORERUN_TRY(keys_.reserve(program.layers, sizeof(void*), "the cache"));
  FORERUN_TRY(values_.reserve(program.layers, sizeof(void*), "the cache"));
  layers_.reset(new (std::nothrow) Region[2 * program.layers]);
  if (!layers_) return fail(FORERUN_OUT_OF_MEMORY, "no memory for the cache");
  for (int32_t l = 0; l < program.layers; ++l) {
    const forerun_layer& layer = program.layer[l];
    const uint64_t heads = static_cast<uint64_t>(sequences) * static_cast<uint64_t>(layer.kv_heads);
    const uint64_t bytes = static_cast<uint64_t>(slots(l)) * static_cast<uint64_t>(layer.head_dim) *
                           static_cast<uint64_t>(program.kv_element_bytes);
    FORERUN_TRY(layers_[2 * l].reserve(heads, bytes, "the keys and values of all positions"));
    FORERUN_TRY(layers_[2 * l + 1].reserve(heads, bytes, "the keys and values of all positions"));
    keys_.as<void*>()[l] = layers_[2 * l].as<void>();
    values_.as<void*>()[l] = layers_[2 * l + 1].as<void>();
  }
  return FORERUN_OK;
}

int64_t KvCache::slots(int32_t layer) const {
  return slots_of(program_->layer[layer], capacity_);
}

uint64_t KvCache::bytes(const forerun_program& program, int32_t capacity) {
  const auto rounded = static_cast<int64_t>(round_up(static_cast<uint64_t>(capacity), FORERUN_KEY_BLOCK));
  uint64_t bytes = 0;
  for (int32_t l = 0; l < program.layers; ++l) {
    bytes += static_cast<uint64_t>(slots_of(program.layer[l], rounded)) * slot_bytes(program, l);
  }
  return bytes;
}

void KvCache::move_row(int32_t sequence, int32_t from, int32_t to, int32_t first, int32_t last) {
  if (remote_ != nullptr) return remote_->move_row(sequence, from, to, first, last);
  with_element(*program_, [&](auto element) {
    using Element = decltype(element);
    for (int32_t l = first; l < last; ++l) {
      for (int32_t h = 0; h < program_->layer[l].kv_heads; ++h) {
        move_in_head(head_of(*program_, l, slots(l), sequence, h), static_cast<Element*>(keys()[l]),
                     static_cast<Element*>(values()[l]), from, to);
      }
    }
  });
}

void KvCache::copy_rows(int32_t from, int32_t to, int32_t rows) {
  if (remote_ != nullptr) return remote_->copy_rows(from, to, rows);
  const int64_t size = element_bytes(*program_);
  const auto blocks = static_cast<int64_t>(round_up(static_cast<uint64_t>(rows), FORERUN_KEY_BLOCK));
  for (int32_t l = 0; l < program_->layers; ++l) {
    const int64_t copied = std::min(blocks, slots(l));
    uint8_t* keys = static_cast<uint8_t*>(keys_.as<void*>()[l]);
    uint8_t* values = static_cast<uint8_t*>(values_.as<void*>()[l]);
    for (int32_t h = 0; h < program_->layer[l].kv_heads; ++h) {
      const Head source = head_of(*program_, l, slots(l), from, h);
      const Head sink = head_of(*program_, l, slots(l), to, h);
      std::memcpy(keys + sink.base * size, keys + source.base * size, copied * source.elements * size);
      std::memcpy(values + sink.base * size, values + source.base * size, copied * source.elements * size);
    }
  }
}

uint64_t KvCache::row_bytes(int32_t layer) const {
  return slot_bytes(*program_, layer);
}

void KvCache::store_row(int32_t sequence, int32_t layer, int32_t slot, void* row) const {
  with_element(*program_, [&](auto element) {
    using Element = decltype(element);
    const auto* const keys = static_cast<const Element*>(this->keys()[layer]);
    const auto* const values = static_cast<const Element*>(this->values()[layer]);
    for (int32_t h = 0; h < program_->layer[layer].kv_heads; ++h) {
      const Head head = head_of(*program_, layer, slots(layer), sequence, h);
      store_head(head, keys, values, slot, static_cast<Element*>(row) + 2 * h * head.elements);
    }
  });
}

void KvCache::load_row(int32_t sequence, int32_t layer, int32_t slot, const void* row) {
  with_element(*program_, [&](auto element) {
    using Element = decltype(element);
    auto* const keys = static_cast<Element*>(this->keys()[layer]);
    auto* const values = static_cast<Element*>(this->values()[layer]);
    for (int32_t h = 0; h < program_->layer[layer].kv_heads; ++h) {
      const Head head = head_of(*program_, layer, slots(layer), sequence, h);
      load_head(head, static_cast<const Element*>(row) + 2 * h * head.elements, slot, keys, values);
    }
  });
}

void KvCache::read(int32_t sequence, int32_t layer, int32_t start, int32_t stop, float* keys_out,
                   float* values_out) const {
  const forerun_layer& sizes = program_->layer[layer];
  with_element(*program_, [&](auto element) {
    using Element = decltype(element);
    const auto* const keys = static_cast<const Element*>(this->keys()[layer]);
    const auto* const values = static_cast<const Element*>(this->values()[layer]);
    for (int32_t h = 0; h < sizes.kv_heads; ++h) {
      const int64_t done = static_cast<int64_t>(h) * (stop - start) * sizes.head_dim;
      read_head(head_of(*program_, layer, slots(layer), sequence, h), keys, values, start, stop,
                keys_out + done, values_out + done);
    }
  });
}

}  // namespace forerun
