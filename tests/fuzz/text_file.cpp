// Any bytes as a text.bin, read by all that reads one if it is opened at all.
#include <cstring>

#include "read_text.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  static const char sample[] = "ab e\xCC\x81 <end> \t b\xE2\x82\xAC\xFF a1 B's";
  const fuzz::Copy copy(data, bytes);
  forerun::TextFile file;
  if (file.open(copy.data(), bytes) == FORERUN_OK) fuzz::read_text(file, sample, std::strlen(sample));
  return 0;
}
