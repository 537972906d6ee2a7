// Status codes with a text for the thread that made the call.
#ifndef FORERUN_STATUS_H
#define FORERUN_STATUS_H

#include "forerun/forerun.h"

namespace forerun {

using Status = forerun_status;

// Sets the calling thread's error text and returns `status`, so that a check is one line.
__attribute__((format(printf, 2, 3))) Status fail(Status status, const char* format, ...);

const char* last_error();

// Leaves the enclosing function with the status of an expression that failed.
#define FORERUN_TRY(expression)                                      \
  do {                                                               \
    const ::forerun::Status forerun_try_status = (expression);       \
    if (forerun_try_status != FORERUN_OK) return forerun_try_status; \
  } while (false)

}  // namespace forerun

#endif
