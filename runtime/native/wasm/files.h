// The files of a bundle where there is no file system: what JavaScript calls beside forerun.h.
#ifndef FORERUN_WASM_FILES_H
#define FORERUN_WASM_FILES_H

#include <cstddef>

#include "forerun/forerun.h"

// Returns room for a file of `bytes` bytes, to be filled by the app before a bundle in the folder that `path`
// begins with is opened; NULL without memory for it, and forerun_last_error() says so. It stays until the
// module is dropped. The core checks sizes and hashes as it does those of a file system.
extern "C" FORERUN_API void* forerun_give_file(const char* path, size_t bytes);

#endif
