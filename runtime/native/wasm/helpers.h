// Threads where only the app can start them: what JavaScript calls beside forerun.h.
#ifndef FORERUN_WASM_HELPERS_H
#define FORERUN_WASM_HELPERS_H

#include <cstdint>

#include "forerun/forerun.h"

namespace forerun {

// Of those that forerun_have_helpers told of, how many have no work: a session's team holds its own.
int32_t helper_count();

}  // namespace forerun

// Says that helpers 0 to count - 1 (count < 256) are or will be in forerun_help, before a bundle is opened.
// Teams of up to count + 1 threads can be started from then on.
extern "C" FORERUN_API void forerun_have_helpers(int32_t count);

// Does the work of helper `number`; never returns. For an instance of the module in a worker of its own on
// the first instance's memory, whose __stack_pointer was set to the end of a stack of its own and where
// __wasm_init_tls was called; _initialize was not.
extern "C" FORERUN_API void forerun_help(int32_t number);

#endif
