// Takes the place of src/cores.cpp on WebAssembly, where the app says how many threads there are.
#include "team.h"

namespace forerun {

int32_t default_threads() {
  return 1;
}

}  // namespace forerun
