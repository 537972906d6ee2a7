// Any bytes as a text, and as ids, to a sound tokenizer; the decoder that streams says what decoding whole
// does.
#include "read_text.h"
#include "small_text.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  static const std::string sound = small_text::make();
  static const fuzz::Copy copy(sound.data(), sound.size());
  static forerun::TextFile file;
  static const bool opened = file.open(copy.data(), sound.size()) == FORERUN_OK;
  CHECK(opened);
  fuzz::read_text(file, reinterpret_cast<const char*>(data), bytes);
  return 0;
}
