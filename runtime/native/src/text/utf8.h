// UTF-8: code points of a text that is known to be sound, and texts made sound.
#ifndef FORERUN_UTF8_H
#define FORERUN_UTF8_H

#include <cstdint>

#include "text/buffer.h"

namespace forerun {

// The code point at *at, which is moved past it. The text must be sound.
inline uint32_t next_point(const char** at) {
  const auto* byte = reinterpret_cast<const uint8_t*>(*at);
  const uint32_t first = byte[0];
  if (first < 0x80) {
    *at += 1;
    return first;
  }
  if (first < 0xE0) {
    *at += 2;
    return (first & 0x1F) << 6 | (byte[1] & 0x3F);
  }
  if (first < 0xF0) {
    *at += 3;
    return (first & 0x0F) << 12 | (byte[1] & 0x3F) << 6 | (byte[2] & 0x3F);
  }
  *at += 4;
  return (first & 0x07) << 18 | (byte[1] & 0x3F) << 12 | (byte[2] & 0x3F) << 6 | (byte[3] & 0x3F);
}

// Where the code point before `at` begins.
inline const char* previous_point(const char* at) {
  do {
    --at;
  } while ((static_cast<uint8_t>(*at) & 0xC0) == 0x80);
  return at;
}

// Appends a code point; false if memory is refused.
bool add_point(Buffer<char>* text, uint32_t point);

// How many of the bytes from `at` on are one whole code point; 0 for bytes that are none, and then *broken
// says how many of them belong together: they are read as one U+FFFD (Unicode, "maximal subpart").
uint32_t whole_point(const char* at, const char* end, uint32_t* broken);

// Whether all of a text is UTF-8.
bool is_sound(const char* at, const char* end);

// Appends a text with U+FFFD for what is no UTF-8; false if memory is refused.
bool add_sound(Buffer<char>* text, const char* from, uint64_t size);

}  // namespace forerun

#endif
