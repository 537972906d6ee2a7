// The C interface of linked.h.

#include <new>

#include "bundle.h"
#include "forerun/linked.h"
#include "visit.h"

using forerun::fail;
using forerun::require;

extern "C" int forerun_bundle_open_linked(const char* path, const forerun_linked* linked, int32_t count,
                                          forerun_bundle** bundle) {
  return forerun_bundle_open_linked_for(path, linked, count, nullptr, bundle);
}

extern "C" int forerun_bundle_open_linked_for(const char* path, const forerun_linked* linked, int32_t count,
                                              const char* target, forerun_bundle** bundle) {
  FORERUN_TRY(require(path, "path"));
  FORERUN_TRY(require(linked, "linked"));
  FORERUN_TRY(require(bundle, "bundle"));
  *bundle = nullptr;
  if (count < 1) return fail(FORERUN_INVALID_ARGUMENT, "%d programs were given; give at least one", count);
  for (int32_t i = 0; i < count; ++i) {
    FORERUN_TRY(require(linked[i].target, "linked.target"));
    FORERUN_TRY(require(reinterpret_cast<const void*>(linked[i].program), "linked.program"));
  }
  forerun_bundle* opened = new (std::nothrow) forerun_bundle;
  if (opened == nullptr) return fail(FORERUN_OUT_OF_MEMORY, "no memory for a bundle");
  const forerun::Status status = opened->open_linked(path, linked, count, target);
  if (status != FORERUN_OK) {
    opened->release();
    return status;
  }
  *bundle = opened;
  return FORERUN_OK;
}
