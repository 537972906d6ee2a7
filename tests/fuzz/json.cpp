// Any bytes as JSON.
#include "json.h"

#include "support.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  const char* const begin = reinterpret_cast<const char*>(data);
  const char* at = begin;
  forerun::Json value;
  std::string reason;
  const bool sound = forerun::read_json(&at, begin + bytes, &value, &reason);
  CHECK(sound ? at > begin && at <= begin + bytes : !reason.empty());
  int64_t number = 0;
  if (sound) value.to_integer(&number);
  return 0;
}
