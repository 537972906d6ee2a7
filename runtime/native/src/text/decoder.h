// Token ids to text: whole lists, and answers as they grow. runtime/output.py is the definition.
#ifndef FORERUN_DECODER_H
#define FORERUN_DECODER_H

#include "text/buffer.h"
#include "text/text_file.h"

namespace forerun {

// Appends the text of tokens without special ones, and without numbers that are no token's. `run` is room to
// work in. False if memory is refused.
bool add_decoded(const TextFile& file, const int32_t* ids, uint32_t count, Buffer<char>* run,
                 Buffer<char>* text);

// Text of a growing list of tokens, in pieces of whole characters. Functions are false if memory is refused,
// and then nothing has changed.
class Detokenizer {
 public:
  // `file` must outlive this.
  explicit Detokenizer(const TextFile& file) : file_(file) {}

  // Room for a window of kWindow tokens. More is taken only where text is held back for longer.
  bool reserve();

  // A character is four tokens at most: those of the last piece, those since, and as many again.
  static constexpr uint32_t kWindow = 16;

  // No fewer bytes than the next piece has.
  uint64_t most_bytes() const { return most_bytes(window_.count() + 1); }
  uint64_t most_bytes(uint32_t tokens) const;

  // The text that a token completes; valid until the next call.
  bool feed(int32_t id, Bytes* piece);

  // What was held back; after it a new list begins.
  bool flush(Bytes* piece);

 private:
  // What stands in text_ after the text of the context.
  Bytes after_context() const;

  const TextFile& file_;
  Buffer<int32_t>
      window_;  // the tokens of the last piece, which some decoders need for spaces, and those since
  uint32_t context_tokens_ = 0;
  uint32_t context_points_ = 0;
  Buffer<char> run_, text_, context_;
};

}  // namespace forerun

#endif
