// What the fuzz targets share. Each is one file with LLVMFuzzerTestOneInput: libFuzzer calls it with inputs
// of its own (make fuzz), replay.cpp with the files of the corpus.
#ifndef FORERUN_FUZZ_SUPPORT_H
#define FORERUN_FUZZ_SUPPORT_H

#include <cstdint>
#include <cstdlib>
#include <string>

#include "forerun/forerun.h"

// A promise that an input broke.
#define CHECK(condition)                                              \
  do {                                                                \
    if (!(condition)) fuzz::end_with(__FILE__, __LINE__, #condition); \
  } while (0)

namespace fuzz {

[[noreturn]] void end_with(const char* file, int line, const char* condition);

// A folder of this process, made once.
const std::string& folder();

void write_file(const std::string& name, const void* data, size_t bytes);

// Writes manifest.json with a first line that vouches for `body`, so that what follows is read.
void write_manifest(const std::string& body);

// A sound manifest of the tiny program, its weights and small_text.h's text; writes these files.
std::string sound_manifest();

// Opens the folder with the tiny program, which is part of this one.
int open_bundle(forerun_bundle** bundle);

// A copy of just its size, so that whoever reads beyond it is seen.
class Copy {
 public:
  Copy(const void* data, size_t bytes);
  Copy(const Copy&) = delete;
  Copy& operator=(const Copy&) = delete;
  ~Copy() { std::free(data_); }
  const uint8_t* data() const { return data_; }

 private:
  uint8_t* data_;
};

}  // namespace fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes);

#endif
