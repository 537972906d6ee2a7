// Takes the place of src/cores.cpp on WebAssembly, where the app says how many threads there are.
#include "helpers.h"
#include "team.h"

namespace forerun {

int32_t default_threads() {
  return 1 + helper_count();
}

}  // namespace forerun
