// Takes the place of src/file.cpp on WebAssembly, which has no file system: a bundle's files are given by the
// app, each in memory of the core's own that it is read into once.
#include "file.h"

#include <memory>
#include <new>

#include "files.h"
#include "memory.h"

namespace forerun {
namespace {

struct GivenFile {
  std::string path;
  Region region;
  size_t bytes = 0;
  std::unique_ptr<GivenFile> next;
};

// Bundles are opened from these by their paths, so they belong to the module and not to any one bundle.
std::unique_ptr<GivenFile> given_files;

}  // namespace

MappedFile::~MappedFile() = default;

Status MappedFile::open(const std::string& folder, const std::string& name) {
  const std::string path = folder + "/" + name;
  for (const GivenFile* file = given_files.get(); file != nullptr; file = file->next.get()) {
    if (file->path != path) continue;
    data_ = file->region.as<uint8_t>();
    bytes_ = file->bytes;
    return FORERUN_OK;
  }
  return fail(FORERUN_FILE, "cannot open %s: the app gave no such file; copy the whole bundle again",
              name.c_str());
}

}  // namespace forerun

extern "C" void* forerun_give_file(const char* path, size_t bytes) {
  std::unique_ptr<forerun::GivenFile> file(new (std::nothrow) forerun::GivenFile);
  if (!file) {
    forerun::fail(FORERUN_OUT_OF_MEMORY, "no memory for the file %s", path);
    return nullptr;
  }
  if (file->region.reserve(1, bytes, path) != FORERUN_OK) return nullptr;
  file->path = path;
  file->bytes = bytes;
  file->next = std::move(forerun::given_files);
  forerun::given_files = std::move(file);
  return forerun::given_files->region.as<void>();
}
