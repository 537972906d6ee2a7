// A system's library of functions, filled into a table of pointers to them.
#ifndef FORERUN_DEVICE_LIBRARY_H
#define FORERUN_DEVICE_LIBRARY_H

#include <cstddef>

namespace forerun {

// Loads the first of `libraries` that there is and looks up `count` functions; returns nullptr, or the name
// of what is missing. It is never unloaded.
const char* load_functions(const char* const* libraries, size_t library_count, const char* const* names,
                           size_t count, void** functions);

}  // namespace forerun

#endif
