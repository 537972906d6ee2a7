// The compiled program inside a bundle's library.
#ifndef FORERUN_COMPILED_H
#define FORERUN_COMPILED_H

#include <string>

#include "forerun/program.h"
#include "manifest.h"
#include "status.h"

namespace forerun {

// A program, and the library that it was loaded from, if any; unloaded when this goes.
class Library {
 public:
  Library() = default;
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;
  ~Library();

  // Loads `path` and asks `symbol` for its program; `name` is the file's name in the bundle.
  Status load(const std::string& path, const std::string& name, const std::string& symbol);

  // Takes a program that is part of the app; `name` is its target's.
  Status take(const forerun_program* (*entry)(void), const std::string& name);

  const forerun_program* program() const { return program_; }

 private:
  Status ask(const forerun_program* (*entry)(void), const char* name);

  void* handle_ = nullptr;
  const forerun_program* program_ = nullptr;
};

// Whether rows can be given as tokens.
bool has_embed(const forerun_program& program);

// Refuses a program whose numbers make no sense or differ from the manifest or the weights file.
Status check_program(const forerun_program& program, const Manifest& manifest, uint64_t weights_bytes);

}  // namespace forerun

#endif
