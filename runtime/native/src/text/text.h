// The text of a bundle: its tokenizer and the pieces of its chat template, read-only.
#ifndef FORERUN_TEXT_H
#define FORERUN_TEXT_H

#include <atomic>

#include "bundle.h"
#include "text/decoder.h"
#include "text/stops.h"

namespace forerun {

class Text {
 public:
  Text() = default;
  Text(const Text&) = delete;
  Text& operator=(const Text&) = delete;
  ~Text();

  // Takes a hold of the bundle, whose bytes it reads.
  Status open(Bundle* bundle);

  const TextFile& file() const { return file_; }

  // Callers and decoders share a text; the last hold to go deletes it.
  void hold() { holds_.fetch_add(1, std::memory_order_relaxed); }
  void release();

 private:
  Bundle* bundle_ = nullptr;
  TextFile file_;
  std::atomic<int32_t> holds_{1};
};

// One answer after the other, token by token.
class Decoder {
 public:
  explicit Decoder(Text* text) : text_(text), detokenizer_(text->file()) { text->hold(); }
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;
  ~Decoder() { text_->release(); }

  Status open(const char* const* stops, int32_t count);
  Status feed(int32_t id, forerun_piece* piece);
  Status flush(forerun_piece* piece);

 private:
  Text* text_;
  Detokenizer detokenizer_;
  StopMatcher stops_;
};

}  // namespace forerun

// The opaque types of the C interface.
struct forerun_text : forerun::Text {};
struct forerun_decoder : forerun::Decoder {
  using Decoder::Decoder;
};

#endif
