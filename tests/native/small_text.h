// A small text.bin made by hand: SentencePiece-style BPE with tokens of bytes, an added token, every kind of
// step and a chat template.
#ifndef FORERUN_SMALL_TEXT_H
#define FORERUN_SMALL_TEXT_H

#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <string>
#include <vector>

#include "sampling.h"
#include "text/text_file.h"

namespace small_text {

using forerun::kNone;

// Tokens: 0 "<end>" (special), 1 a, 2 b, 3 ab, 4 a space, 5 " a", 6 é, then one for each byte.
constexpr uint32_t kFirstByte = 7, kVocabulary = kFirstByte + 256;

inline std::string words(std::initializer_list<uint32_t> numbers) {
  return std::string(reinterpret_cast<const char*>(numbers.begin()), numbers.size() * sizeof(uint32_t));
}

inline std::string texts(const std::vector<std::string>& each, std::string* starts) {
  std::string all;
  for (const std::string& text : each) {
    *starts += words({static_cast<uint32_t>(all.size())});
    all += text;
  }
  *starts += words({static_cast<uint32_t>(all.size())});
  return all;
}

// Open addressing, as the readers seek: rows of `width` numbers by the hash of their keys.
struct Row {
  uint64_t key;
  std::vector<uint32_t> numbers;
};

inline std::string table(uint32_t slots, uint32_t width, const std::vector<Row>& rows) {
  std::vector<uint32_t> cells(slots * width, kNone);
  for (const Row& row : rows) {
    auto slot = static_cast<uint32_t>(forerun::mix(row.key)) & (slots - 1);
    while (cells[slot * width] != kNone) slot = (slot + 1) & (slots - 1);
    std::memcpy(&cells[slot * width], row.numbers.data(), width * sizeof(uint32_t));
  }
  return std::string(reinterpret_cast<const char*>(cells.data()), cells.size() * sizeof(uint32_t));
}

inline std::string joined(const std::vector<std::string>& sections) {
  std::string directory("FRTEXT\0\1", 8), body;
  const uint64_t start = directory.size() + 16 * sections.size();
  for (const std::string& section : sections) {
    body.resize((body.size() + 7) / 8 * 8);
    const uint64_t place[2] = {start + body.size(), section.size()};
    directory.append(reinterpret_cast<const char*>(place), sizeof place);
    body += section;
  }
  return directory + body;
}

inline std::string make() {
  std::vector<std::string> tokens = {"<end>", "a", "b", "ab", " ", " a", "\xC3\xA9"};
  std::string flags("\1\0\0\0\0\0\0", 7), byte_ids, token_starts, string_starts;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    tokens.emplace_back(1, static_cast<char>(byte));
    flags += '\4';
    byte_ids += words({kFirstByte + byte});
  }
  const std::string token_bytes = texts(tokens, &token_starts);
  // 0 the mark, 1 a space, 2 an added token, what stands around messages, what they must not hold, an added
  // token.
  const std::string strings =
      texts({"\xE2\x96\x81", " ", "<end>", "<u>", "<a>", "</think>", "<t>"}, &string_starts);
  const uint32_t mark = 0x2581;
  return joined({
      words({kVocabulary, 0, 1, 0, kNone, 0, 3, 0, 1, 0, kNone, 1, 1, 1, kNone, 0}),
      token_starts,
      token_bytes,
      flags,
      byte_ids,
      words({1, 2, 3, 4, 1, 5}),
      table(8, 1, {{uint64_t{1} << 32 | 2, {0}}, {uint64_t{4} << 32 | 1, {1}}}),
      table(16, 2, {{'a', {'a', 1}}, {'b', {'b', 2}}, {mark, {mark, 4}}, {0xE9, {0xE9, 6}}}),
      "",
      // Put the mark before, a mark for every space, compose; cut before marks, then at runs of white space.
      words({1, 0, 0, 0, 2, 1, 0, 0, 3, 0, 0, 0, 0, 0, 3, 0, 0, 1, 0, 0}),
      words({0, 2, 2, 8}),
      // The mark; \s+(?!\S)|\s+
      words({0, 1, 1, 1, 5, 0, 0, 0}) + words({1, 1, 6, 0, 0, 0, 1, kNone, 3, 5, 0, 0, 0, 2, 1, 1}) +
          words({5, 0, 0, 0, 2, 7, 0, 0, 0, 0, 1, kNone, 5, 0, 0, 0}),
      words({0, 2, 3, 4}),
      words({9, 13, 32, 32, mark, mark, 33, 0x10FFFF}),
      string_starts,
      strings,
      words({2, 0, 0, 6, 3, 0}),
      words({0xE9, 0, 2}),
      words({'e', 0x301}),
      words({0x301, 230}),
      words({'e', 0x301, 0xE9}),
      words({0}),
      words(
          {kNone, 3, kNone, kNone, kNone, kNone, kNone, kNone, 4, kNone, 3, kNone, kNone, 4, kNone, 0, 3, 0}),
      words({2, 5}),
  });
}

}  // namespace small_text

#endif
