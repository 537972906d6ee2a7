// Texts to token ids, as the tokenizer.json that text.bin was made of has it.
#ifndef FORERUN_TOKENIZER_H
#define FORERUN_TOKENIZER_H

#include "text/buffer.h"
#include "text/merger.h"
#include "text/pattern.h"
#include "text/text_file.h"

namespace forerun {

class Tokenizer {
 public:
  // `file` must outlive this.
  explicit Tokenizer(const TextFile& file);

  // Appends the ids of a text. Bytes that are no UTF-8 are read as U+FFFD.
  Status encode(const char* text, uint64_t size, Buffer<int32_t>* ids);

 private:
  struct Piece {
    uint32_t begin, end;  // in the text at hand
    bool is_first;        // of the whole text
  };
  // Two texts that steps work on in turn, and where their pieces are.
  struct Draft {
    Buffer<char> text;
    Buffer<Piece> pieces;
  };

  // Each of these is false if memory is refused or a pattern gives up.
  bool encode_sound(const char* text, uint32_t size, Buffer<int32_t>* ids);
  bool encode_normalized(const char* text, uint32_t size, bool is_first, Buffer<int32_t>* ids);
  bool encode_plain(const char* text, uint32_t size, bool is_first, Buffer<int32_t>* ids);

  bool apply(const TextStep& step);
  bool cut(const TextStep& step);
  bool cut_piece(const TextStep& step, const Piece& piece);
  bool keep(uint32_t begin, uint32_t end, bool is_first);
  bool put(const TextStep& step);
  bool substitute(const TextStep& step);
  bool compose();

  // The added token that begins at `at`, nullptr if none does; the longest of them, among those sought in
  // normalized texts or those sought before.
  const AddedToken* added_at(const char* at, const char* end, bool normalized) const;
  // Calls visit(begin, end, token) for added tokens and, with nullptr, for what lies between them.
  template <typename Visit>
  bool each_part(const char* text, uint32_t size, bool normalized, Visit visit) const;
  const char* spaces_before(const char* at, const char* least) const;
  const char* spaces_after(const char* at, const char* end) const;

  const TextFile& file_;
  bool begins_added_[2][256] =
      {};  // bytes that added tokens begin with, by whether they are sought in normalized text
  Buffer<char> sound_, normalized_;
  Draft drafts_[2];
  Draft* now_ = &drafts_[0];
  Draft* next_ = &drafts_[1];
  Matcher matcher_;
  Merger merger_;
  Buffer<uint32_t> points_;
};

}  // namespace forerun

#endif
