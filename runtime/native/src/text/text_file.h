// A tokenizer as `forerun compile` lays it out in text.bin; compiler/text/text_file.py writes it.
//
// Everything in it is checked once, when it is opened (text_check.cpp): offsets, sizes, every number that is
// used as an index, and that texts are sound UTF-8.
#ifndef FORERUN_TEXT_FILE_H
#define FORERUN_TEXT_FILE_H

#include <cstddef>
#include <cstdint>

#include "status.h"

namespace forerun {

constexpr uint32_t kNone = 0xFFFFFFFFu;  // no id, no upper limit, an empty slot

template <typename T>
struct Span {
  const T* data = nullptr;
  uint32_t count = 0;

  const T& operator[](uint32_t index) const { return data[index]; }
  const T* begin() const { return data; }
  const T* end() const { return data + count; }
};

struct TextSettings {
  uint32_t vocabulary_size;
  uint32_t byte_level;     // pieces are read, and tokens written, byte by byte
  uint32_t byte_fallback;  // a character without a token is read as its bytes' tokens
  uint32_t fuse_unknown;   // neighbours without a token are one unknown token
  uint32_t unknown_id;
  uint32_t whole_pieces;  // a piece that is a token is not merged
  uint32_t normalize_steps;
  uint32_t whitespace;        // class
  uint32_t decodes_fallback;  // a run of tokens that are bytes is written as one text
  uint32_t separates;         // a space is written between tokens
  uint32_t mark;              // text that is written as a space, in the first token as nothing
  uint32_t strips;            // spaces taken from the beginning of what is written
  uint32_t bos_id;
  uint32_t add_bos;
  uint32_t chat_refusal;  // text: why there are no chat prompts
  uint32_t chat_spaces;   // class: what messages are stripped of
};

struct TextStep {
  enum Kind : uint32_t { kCut, kPut, kSubstitute, kCompose };
  uint32_t kind;
  uint32_t a;  // cut: program; put: text; substitute: old text
  uint32_t b;  // cut: what becomes of a match; put: before the first piece only; substitute: new text
  uint32_t c;  // put: unless it is there
};

struct Operation {
  enum Kind : uint32_t { kRun, kSplit, kJump, kUnless, kProvided, kMatch };
  uint32_t kind, a, b, c;
};

struct Merge {
  uint32_t left, right, merged;
};

struct AddedToken {
  enum Flag : uint32_t { kStripsLeft = 1, kStripsRight = 2, kNormalized = 4 };
  uint32_t text, id, flags;
};

enum TokenFlag : uint8_t { kSpecial = 1, kAbsent = 2, kByte = 4 };

constexpr uint32_t kRoles = 3;  // system, user, assistant

// Texts that a chat template writes around messages.
struct ChatTable {
  uint32_t joints[kRoles + 1][kRoles];  // text by the role before (0: none) and the role; kNone: not allowed
  uint32_t ends[kRoles];                // text after the last message; kNone: cannot be the last
  uint32_t strips[kRoles];              // 1: spaces on the left, 2: on the right
};

// What a message of a role must not hold.
struct Refused {
  uint32_t role, text;
};

// A text of the file.
struct Bytes {
  const char* data = nullptr;
  uint32_t size = 0;
};

struct TextFile {
  TextSettings settings;
  Span<uint32_t> token_starts;  // [V + 1]
  Span<uint8_t> token_bytes;
  Span<uint8_t> token_flags;   // [V]
  Span<uint32_t> byte_ids;     // [256]
  Span<Merge> merges;          // by rank
  Span<uint32_t> merge_slots;  // ranks by the hash of (left, right)
  Span<uint32_t> symbols;      // [slots, 2]: code point, id
  Span<uint32_t> piece_slots;  // ids by the hash of their bytes
  Span<TextStep> steps;
  Span<uint32_t> programs;  // [n, 2]: first operation, count
  Span<Operation> operations;
  Span<uint32_t> class_starts;  // [n + 1]
  Span<uint32_t> ranges;        // [n, 2]: first and last code point
  Span<uint32_t> string_starts;
  Span<uint8_t> string_bytes;
  Span<AddedToken> added;         // sorted by their bytes
  Span<uint32_t> decompositions;  // [n, 3]: code point, first of its parts, count
  Span<uint32_t> decomposed;      // parts
  Span<uint32_t> marks;           // [n, 2]: code point, combining class
  Span<uint32_t> compositions;    // [n, 3]: first, second, composed
  Span<int32_t> end_ids;
  Span<ChatTable> chat;  // one or none
  Span<Refused> refused;

  uint32_t longest_token = 0;  // bytes

  // Takes over a file's bytes, which must be aligned to 8 and outlive this; FORERUN_TEXT for one that is
  // damaged.
  Status open(const uint8_t* data, size_t bytes);

  // What is wrong with the sections, nullptr if nothing is.
  const char* fault() const;

  Bytes token(uint32_t id) const {
    return {reinterpret_cast<const char*>(token_bytes.data) + token_starts[id],
            token_starts[id + 1] - token_starts[id]};
  }
  Bytes string(uint32_t number) const {
    return {reinterpret_cast<const char*>(string_bytes.data) + string_starts[number],
            string_starts[number + 1] - string_starts[number]};
  }
  bool class_has(uint32_t number, uint32_t point) const;
};

}  // namespace forerun

#endif
