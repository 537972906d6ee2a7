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
  std::string library;  // empty: the program is part of the app
  std::string symbol;
  std::string architecture;
  std::vector<std::string> features;
};

// A draft network in a folder of its own below the bundle's.
struct ListedDraft {
  static constexpr int32_t kMostTaps = 16;

  std::string name;
  std::string path;
  std::string component;    // its kind: feature, heads or exit
  int32_t taps[kMostTaps];  // layers of the model whose hidden states feed it, ascending
  int32_t tap_count;
  int32_t heads;  // that share its layers evenly
};

struct Manifest {
  std::vector<ListedDraft> drafts;
  std::vector<ListedTarget> targets;
  std::vector<ListedFile> files;
  // As the compiler wrote them; the program must agree.
  int64_t layers;
  int64_t hidden_size;
  int64_t vocabulary_size;
  int64_t context_length;
  uint64_t hash;        // of all that follows the first line; the files' hashes are part of it
  std::string no_text;  // why there is no text.bin; empty where there is one, or no tokenizer
};

// Reads the bytes of a manifest: header line, version, hash, then the fields that the core needs.
Status read_manifest(const char* text, size_t bytes, Manifest* manifest);

}  // namespace forerun

#endif
