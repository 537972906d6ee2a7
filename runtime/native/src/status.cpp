#include "status.h"

#include <cstdarg>
#include <cstdio>

namespace forerun {

namespace {
thread_local char error_text[1024] = "";
}

Status fail(Status status, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(error_text, sizeof error_text, format, arguments);
  va_end(arguments);
  return status;
}

const char* last_error() {
  return error_text;
}

}  // namespace forerun
