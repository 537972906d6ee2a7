#include "support.h"

#include <cstdio>
#include <filesystem>
#include <system_error>
#include <vector>

#include "forerun/linked.h"
#include "small_text.h"

extern "C" const forerun_program* forerun_program_model(void);

namespace fuzz {
namespace {

constexpr forerun_linked kLinked[] = {{"tiny", forerun_program_model, nullptr}};

// Gone when the process ends.
struct Folder {
  Folder() {
    // In memory where that is possible: every input may be written.
    name = std::filesystem::exists("/dev/shm") ? "/dev/shm/" : "/tmp/";
    name += "forerun-fuzz-XXXXXX";
    CHECK(mkdtemp(&name[0]) != nullptr);
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(name, ignored);
  }
  std::string name;
};

std::string listed(const char* name, const void* data, size_t bytes) {
  char text[200];
  std::snprintf(text, sizeof text, "\"%s\": {\"bytes\": %zu, \"xxh64\": \"%016llx\"}", name, bytes,
                static_cast<unsigned long long>(forerun_hash64(data, bytes, 0)));
  return text;
}

}  // namespace

void end_with(const char* file, int line, const char* condition) {
  std::fprintf(stderr, "%s:%d: %s (last error: %s)\n", file, line, condition, forerun_last_error());
  std::abort();
}

const std::string& folder() {
  static const Folder made;
  return made.name;
}

void write_file(const std::string& name, const void* data, size_t bytes) {
  FILE* const file = std::fopen((folder() + "/" + name).c_str(), "wb");
  CHECK(file != nullptr);
  CHECK(std::fwrite(data, 1, bytes, file) == bytes);
  CHECK(std::fclose(file) == 0);
}

void write_manifest(const std::string& body) {
  char header[200];
  std::snprintf(header, sizeof header,
                "{\"format\": \"forerun-bundle\", \"version\": 3, \"xxh64\": \"%016llx\", \"manifest\":\n",
                static_cast<unsigned long long>(forerun_hash64(body.data(), body.size(), 0)));
  const std::string all = header + body;
  write_file("manifest.json", all.data(), all.size());
}

std::string sound_manifest() {
  const forerun_program& program = *forerun_program_model();
  std::vector<float> weights(program.weights_bytes / sizeof(float));
  for (size_t i = 0; i < weights.size(); ++i)
    weights[i] = static_cast<float>(i * 7919 % 2001) * 0.0006f - 0.6f;
  const std::string text = small_text::make();
  write_file("weights.bin", weights.data(), program.weights_bytes);
  write_file("text.bin", text.data(), text.size());
#if defined(__x86_64__)
  const char* const architecture = "x86_64";
#else
  const char* const architecture = "aarch64";
#endif
  char head[600];
  std::snprintf(
      head, sizeof head,
      "{\"config\": {\"layers\": %d, \"hidden_size\": %d, \"vocabulary_size\": %d, \"context_length\": "
      "%d},\n\"targets\": {\"tiny\": {\"symbol\": \"forerun_program_model\", \"arch\": \"%s\", "
      "\"features\": []}}, \"files\": {\n",
      program.layers, program.hidden_size, program.vocabulary_size, program.context_length, architecture);
  return head + listed("weights.bin", weights.data(), program.weights_bytes) + ",\n" +
         listed("text.bin", text.data(), text.size()) + "}}}\n";
}

int open_bundle(forerun_bundle** bundle) {
  return forerun_bundle_open_linked(folder().c_str(), kLinked, 1, bundle);
}

Copy::Copy(const void* data, size_t bytes)
    : data_(static_cast<uint8_t*>(std::malloc(bytes > 0 ? bytes : 1))) {
  CHECK(data_ != nullptr);
  if (bytes > 0) std::memcpy(data_, data, bytes);
}

}  // namespace fuzz
