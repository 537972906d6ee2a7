#include "device/library.h"

#ifndef __wasm__
#include <dlfcn.h>
#endif

namespace forerun {

#ifdef __wasm__

const char* load_functions(const char* const* libraries, size_t, const char* const*, size_t, void**) {
  return libraries[0];
}

#else

const char* load_functions(const char* const* libraries, size_t library_count, const char* const* names,
                           size_t count, void** functions) {
  void* library = nullptr;
  for (size_t i = 0; i < library_count && library == nullptr; ++i) {
    library = dlopen(libraries[i], RTLD_NOW | RTLD_LOCAL);
  }
  if (library == nullptr) return libraries[0];
  for (size_t i = 0; i < count; ++i) {
    functions[i] = dlsym(library, names[i]);
    if (functions[i] == nullptr) return names[i];
  }
  return nullptr;
}

#endif

}  // namespace forerun
