// manifest.json, read and checked.
#ifndef FORERUN_MANIFEST_H
#define FORERUN_MANIFEST_H

#include <cstdint>
#include <string>
#include <vector>

#include "status.h"

namespace forerun {

struct ListedFile {
  std::string name;
  uint64_t bytes;
  uint64_t hash;
};

struct ListedTarget {
  std::string name;
  std::string library;
  std::string symbol;
  std::string architecture;
  std::vector<std::string> features;
};

struct Manifest {
  std::vector<ListedTarget> targets;
  std::vector<ListedFile> files;
  // As the compiler wrote them; the program must agree.
  int64_t layers;
  int64_t hidden_size;
  int64_t vocabulary_size;
  int64_t context_length;
  std::string no_text;  // why there is no text.bin; empty where there is one, or no tokenizer
};

// Reads the bytes of a manifest: header line, version, hash, then the fields that the core needs.
Status read_manifest(const char* text, size_t bytes, Manifest* manifest);

}  // namespace forerun

#endif
