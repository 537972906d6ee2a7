// The compiled program inside a bundle's library.
#ifndef FORERUN_COMPILED_H
#define FORERUN_COMPILED_H

#include <string>

#include "forerun/program.h"
#include "manifest.h"
#include "status.h"

namespace forerun {

// A library loaded from a bundle; unloaded when this goes.
class Library {
 public:
  Library() = default;
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;
  ~Library();

  // Loads `path` and asks `symbol` for its program; `name` is the file's name in the bundle.
  Status load(const std::string& path, const std::string& name, const std::string& symbol);

  const forerun_program* program() const { return program_; }

 private:
  void* handle_ = nullptr;
  const forerun_program* program_ = nullptr;
};

// Refuses a program whose numbers make no sense or differ from the manifest or the weights file.
Status check_program(const forerun_program& program, const Manifest& manifest, uint64_t weights_bytes);

}  // namespace forerun

#endif
