#include "text/utf8.h"

namespace forerun {

bool add_point(Buffer<char>* text, uint32_t point) {
  char bytes[4];
  uint32_t size = 0;
  if (point < 0x80) {
    bytes[size++] = static_cast<char>(point);
  } else {
    if (point < 0x800) {
      bytes[size++] = static_cast<char>(0xC0 | point >> 6);
    } else {
      if (point < 0x10000) {
        bytes[size++] = static_cast<char>(0xE0 | point >> 12);
      } else {
        bytes[size++] = static_cast<char>(0xF0 | point >> 18);
        bytes[size++] = static_cast<char>(0x80 | (point >> 12 & 0x3F));
      }
      bytes[size++] = static_cast<char>(0x80 | (point >> 6 & 0x3F));
    }
    bytes[size++] = static_cast<char>(0x80 | (point & 0x3F));
  }
  return text->add_all(bytes, size);
}

uint32_t whole_point(const char* at, const char* end, uint32_t* broken) {
  const auto* byte = reinterpret_cast<const uint8_t*>(at);
  const auto left = static_cast<uint64_t>(end - at);
  const uint32_t first = byte[0];
  *broken = 1;
  if (first < 0x80) return 1;
  if (first < 0xC2 || first > 0xF4) return 0;
  const uint32_t size = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
  // What the second byte may be leaves out overlong forms, surrogates and what lies beyond Unicode.
  const uint32_t low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
  const uint32_t high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
  for (uint32_t i = 1; i < size; ++i) {
    if (i >= left || byte[i] < (i == 1 ? low : 0x80) || byte[i] > (i == 1 ? high : 0xBF)) {
      *broken = i;
      return 0;
    }
  }
  return size;
}

bool is_sound(const char* at, const char* end) {
  uint32_t broken = 0;
  while (at < end) {
    const uint32_t whole = whole_point(at, end, &broken);
    if (whole == 0) return false;
    at += whole;
  }
  return true;
}

bool add_sound(Buffer<char>* text, const char* from, uint64_t size) {
  const char* end = from + size;
  while (from < end) {
    // A run of whole code points at a time.
    const char* at = from;
    uint32_t broken = 0;
    while (at < end) {
      const uint32_t whole = whole_point(at, end, &broken);
      if (whole == 0) break;
      at += whole;
    }
    if (!text->add_all(from, static_cast<uint64_t>(at - from))) return false;
    from = at;
    if (from < end) {
      if (!add_point(text, 0xFFFD)) return false;
      from += broken;
    }
  }
  return true;
}

}  // namespace forerun
