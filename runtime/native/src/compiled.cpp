#include "compiled.h"

#include <dlfcn.h>

#include <cinttypes>

#include "device/device_program.h"

namespace forerun {
namespace {

// Far above any real model, far below where products of them would wrap.
constexpr int32_t kMaxLayers = 4096;
constexpr int32_t kMaxSize = 1 << 26;
constexpr int32_t kMaxRows = 1 << 16;
constexpr int32_t kMaxRing = 1 << 26;
constexpr int32_t kMaxKernels = 1 << 16;

bool within(int32_t value, int32_t least, int32_t most) {
  return value >= least && value <= most;
}

Status refuse(const char* what, int64_t value) {
  return fail(FORERUN_PROGRAM,
              "the compiled program says %s is %" PRId64 ", which cannot be; compile the bundle again", what,
              value);
}

Status check_sizes(const forerun_program& program) {
  if (!within(program.layers, 1, kMaxLayers)) return refuse("layers", program.layers);
  if (!within(program.hidden_size, 1, kMaxSize)) return refuse("hidden_size", program.hidden_size);
  if (!within(program.vocabulary_size, 1, kMaxSize))
    return refuse("vocabulary_size", program.vocabulary_size);
  if (!within(program.feature_size, 0, kMaxSize)) return refuse("feature_size", program.feature_size);
  if (!within(program.context_length, 1, kMaxSize)) return refuse("context_length", program.context_length);
  if (!within(program.max_rows, 1, kMaxRows)) return refuse("max_rows", program.max_rows);
  if (!within(program.max_gather, 0, kMaxRows)) return refuse("max_gather", program.max_gather);
  if (program.kv_element_bytes != 2 && program.kv_element_bytes != 4) {
    return refuse("kv_element_bytes", program.kv_element_bytes);
  }
  if (program.layer == nullptr) return refuse("layer", 0);
  for (int32_t l = 0; l < program.layers; ++l) {
    if (!within(program.layer[l].kv_heads, 1, kMaxRows)) return refuse("kv_heads", program.layer[l].kv_heads);
    if (!within(program.layer[l].head_dim, 1, kMaxRows)) return refuse("head_dim", program.layer[l].head_dim);
    const forerun_layer& layer = program.layer[l];
    if (!within(layer.window, 0, kMaxRing)) return refuse("window", layer.window);
    const int64_t least = layer.window == 0 ? 0 : layer.window + 2 * static_cast<int64_t>(program.max_rows);
    const bool round = layer.ring % FORERUN_KEY_BLOCK == 0;
    if (!within(layer.ring, least, layer.window == 0 ? 0 : kMaxRing) || !round)
      return refuse("ring", layer.ring);
  }
  if (!within(program.kernels, 0, kMaxKernels)) return refuse("kernels", program.kernels);
  if (program.kernels > 0 && program.kernel == nullptr) return refuse("kernel", 0);
  for (int32_t k = 0; k < program.kernels; ++k) {
    if (!program.kernel[k].module || !program.kernel[k].name) return refuse("the name of kernel", k);
  }
  if (!has_embed(program) && program.feature_size > 0)
    return refuse("features without embed", program.feature_size);
  if (program.device != nullptr) return check_device_program(program);
  if (!program.attention || !program.feed_forward || !program.head || !program.head_maxima ||
      !program.head_blocks) {
    return refuse("a step function", 0);
  }
  return FORERUN_OK;
}

Status compare(const char* what, int64_t program, int64_t manifest) {
  if (program == manifest) return FORERUN_OK;
  return fail(FORERUN_PROGRAM,
              "the compiled program has %s %" PRId64 ", the manifest says %" PRId64
              "; files of different bundles are mixed: compile the bundle again",
              what, program, manifest);
}

}  // namespace

bool has_embed(const forerun_program& program) {
  return program.embed != nullptr || (program.device != nullptr && program.device->embed.module != nullptr);
}

Library::~Library() {
  if (handle_ != nullptr) dlclose(handle_);
}

Status Library::load(const std::string& path, const std::string& name, const std::string& symbol) {
  handle_ = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle_ == nullptr) {
    return fail(FORERUN_LIBRARY, "cannot load %s: %s; compile the bundle on or for this system", name.c_str(),
                dlerror());
  }
  using Entry = const forerun_program* (*)(void);
  const Entry entry = reinterpret_cast<Entry>(dlsym(handle_, symbol.c_str()));
  if (entry == nullptr) {
    return fail(FORERUN_LIBRARY, "%s has no function %s; compile the bundle again", name.c_str(),
                symbol.c_str());
  }
  return ask(entry, name.c_str());
}

Status Library::take(const forerun_program* (*entry)(void), const std::string& name) {
  return ask(entry, name.c_str());
}

Status Library::ask(const forerun_program* (*entry)(void), const char* name) {
  program_ = entry();
  if (program_ == nullptr) {
    return fail(FORERUN_LIBRARY, "the program of %s returns nothing; compile the bundle again", name);
  }
  if (program_->abi != FORERUN_PROGRAM_ABI) {
    return fail(FORERUN_PROGRAM_ABI_MISMATCH,
                "%s was built for program interface %u, this forerun has %d; compile the bundle again", name,
                program_->abi, FORERUN_PROGRAM_ABI);
  }
  return FORERUN_OK;
}

Status check_program(const forerun_program& program, const Manifest& manifest, uint64_t weights_bytes) {
  FORERUN_TRY(check_sizes(program));
  FORERUN_TRY(compare("layers", program.layers, manifest.layers));
  FORERUN_TRY(compare("hidden_size", program.hidden_size, manifest.hidden_size));
  FORERUN_TRY(compare("vocabulary_size", program.vocabulary_size, manifest.vocabulary_size));
  FORERUN_TRY(compare("context_length", program.context_length, manifest.context_length));
  return compare("weights of bytes", static_cast<int64_t>(program.weights_bytes),
                 static_cast<int64_t>(weights_bytes));
}

}  // namespace forerun
