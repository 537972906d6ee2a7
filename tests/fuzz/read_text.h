// Everything that reads a text.bin, with any text and any ids.
#ifndef FORERUN_FUZZ_READ_TEXT_H
#define FORERUN_FUZZ_READ_TEXT_H

#include "support.h"
#include "text/chat.h"
#include "text/decoder.h"
#include "text/stops.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

namespace fuzz {

inline void read_text(const forerun::TextFile& file, const char* text, size_t bytes) {
  forerun::Buffer<int32_t> ids;
  forerun::Buffer<char> run, decoded, prompt;
  forerun::Tokenizer tokenizer(file);
  const forerun_message messages[] = {{"system", "b", 1}, {"user", text, bytes}};
  if (tokenizer.encode(text, bytes, &ids) == FORERUN_OK) {
    for (size_t i = 0; i < ids.count(); ++i) {
      CHECK(ids.data()[i] >= 0 && static_cast<uint32_t>(ids.data()[i]) < file.settings.vocabulary_size);
    }
    CHECK(add_decoded(file, ids.data(), ids.count(), &run, &decoded));
    CHECK(forerun::is_sound(decoded.data(), decoded.data() + decoded.count()));
  }
  add_prompt(file, messages, 2, &prompt);
  add_prompt(file, messages + 1, 1, &prompt);
  // The text as ids, many of which no token has.
  forerun::Buffer<int32_t> any;
  for (size_t i = 0; i < bytes; ++i) CHECK(any.add(static_cast<int8_t>(text[i]) * 3));
  decoded.clear();
  CHECK(add_decoded(file, any.data(), any.count(), &run, &decoded));
  CHECK(forerun::is_sound(decoded.data(), decoded.data() + decoded.count()));
}

}  // namespace fuzz

#endif
