#include "text/merger.h"

#include <algorithm>

#include "sampling.h"
#include "text/utf8.h"

namespace forerun {
namespace {

// FNV-1a, 64 bits.
uint64_t hash_of(const char* text, uint32_t size) {
  uint64_t value = 0xCBF29CE484222325ull;
  for (uint32_t i = 0; i < size; ++i) {
    value = (value ^ static_cast<uint8_t>(text[i])) * 0x100000001B3ull;
  }
  return value;
}

}  // namespace

const Merge* Merger::find_merge(uint32_t left, uint32_t right, uint32_t* rank) const {
  const uint32_t mask = file_.merge_slots.count - 1;
  auto slot = static_cast<uint32_t>(mix(uint64_t{left} << 32 | right)) & mask;
  while (file_.merge_slots[slot] != kNone) {
    *rank = file_.merge_slots[slot];
    const Merge& merge = file_.merges[*rank];
    if (merge.left == left && merge.right == right) return &merge;
    slot = (slot + 1) & mask;
  }
  return nullptr;
}

uint32_t Merger::find_symbol(uint32_t point) const {
  const uint32_t mask = file_.symbols.count / 2 - 1;
  auto slot = static_cast<uint32_t>(mix(point)) & mask;
  while (file_.symbols[2 * slot] != kNone) {
    if (file_.symbols[2 * slot] == point) return file_.symbols[2 * slot + 1];
    slot = (slot + 1) & mask;
  }
  return kNone;
}

uint32_t Merger::find_piece(const char* text, uint32_t size) const {
  const uint32_t mask = file_.piece_slots.count - 1;
  auto slot = static_cast<uint32_t>(mix(hash_of(text, size))) & mask;
  while (file_.piece_slots[slot] != kNone) {
    const Bytes token = file_.token(file_.piece_slots[slot]);
    if (token.size == size && std::memcmp(token.data, text, size) == 0) return file_.piece_slots[slot];
    slot = (slot + 1) & mask;
  }
  return kNone;
}

bool Merger::add_symbol(uint32_t id) {
  const uint32_t place = symbols_.count();
  if (place > 0) symbols_.last().next = place;
  return symbols_.add({id, place == 0 ? kNone : place - 1, kNone});
}

bool Merger::add_unknown() {
  const uint32_t id = file_.settings.unknown_id;
  if (id == kNone) return true;  // such characters are left out
  if (file_.settings.fuse_unknown && symbols_.count() > 0 && symbols_.last().id == id) return true;
  return add_symbol(id);
}

bool Merger::read_bytes(const char* text, uint32_t size) {
  for (uint32_t i = 0; i < size; ++i) {
    const uint32_t id = file_.byte_ids[static_cast<uint8_t>(text[i])];
    if (!(id == kNone ? add_unknown() : add_symbol(id))) return false;
  }
  return true;
}

bool Merger::read_symbols(const char* text, uint32_t size) {
  symbols_.clear();
  if (file_.settings.byte_level) return read_bytes(text, size);
  for (const char *at = text, *end = text + size; at < end;) {
    const char* start = at;
    const uint32_t id = find_symbol(next_point(&at));
    const auto bytes = static_cast<uint32_t>(at - start);
    const auto has_byte = [&](char byte) { return file_.byte_ids[static_cast<uint8_t>(byte)] != kNone; };
    const bool falls_back = file_.settings.byte_fallback && std::all_of(start, at, has_byte);
    if (!(id != kNone ? add_symbol(id) : falls_back ? read_bytes(start, bytes) : add_unknown())) return false;
  }
  return true;
}

bool Merger::add_candidate(uint32_t place) {
  const Symbol& left = symbols_[place];
  if (left.next == kNone) return true;
  uint32_t rank;
  const Merge* merge = find_merge(left.id, symbols_[left.next].id, &rank);
  if (merge == nullptr) return true;
  if (!candidates_.add({rank, place, merge->merged})) return false;
  std::push_heap(candidates_.data(), candidates_.data() + candidates_.count());
  return true;
}

void Merger::merge(const Candidate& candidate) {
  Symbol& left = symbols_[candidate.place];
  Symbol& right = symbols_[left.next];
  left.id = candidate.merged;
  left.next = right.next;
  right.id = kNone;
  if (left.next != kNone) symbols_[left.next].previous = candidate.place;
}

bool Merger::is_current(const Candidate& candidate) const {
  const Symbol& left = symbols_[candidate.place];
  if (left.id == kNone || left.next == kNone) return false;
  uint32_t rank;
  const Merge* merge = find_merge(left.id, symbols_[left.next].id, &rank);
  return merge != nullptr && merge->merged == candidate.merged;
}

bool Merger::add_piece(const char* text, uint32_t size, Buffer<int32_t>* ids) {
  if (file_.settings.whole_pieces) {
    const uint32_t id = find_piece(text, size);
    if (id != kNone) return ids->add(static_cast<int32_t>(id));
  }
  if (!read_symbols(text, size)) return false;
  candidates_.clear();
  for (uint32_t place = 0; place < symbols_.count(); ++place) {
    if (!add_candidate(place)) return false;
  }
  while (candidates_.count() > 0) {
    std::pop_heap(candidates_.data(), candidates_.data() + candidates_.count());
    const Candidate candidate = candidates_.last();
    candidates_.drop_last();
    if (!is_current(candidate)) continue;  // one of the two was merged meanwhile
    merge(candidate);
    const uint32_t previous = symbols_[candidate.place].previous;
    if (previous != kNone && !add_candidate(previous)) return false;
    if (!add_candidate(candidate.place)) return false;
  }
  for (uint32_t i = 0; i < symbols_.count(); ++i) {
    if (symbols_[i].id != kNone && !ids->add(static_cast<int32_t>(symbols_[i].id))) return false;
  }
  return true;
}

}  // namespace forerun
