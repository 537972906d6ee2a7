// A small strict JSON reader (RFC 8259) for manifests: no duplicate keys, no trailing text, bounded depth.
#ifndef FORERUN_JSON_H
#define FORERUN_JSON_H

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace forerun {

struct Json {
  enum Kind { kNull, kBoolean, kNumber, kText, kArray, kObject };

  Kind kind = kNull;
  std::string text;  // the text, or a number as it is written
  std::vector<Json> items;
  std::vector<std::pair<std::string, Json>> members;

  // The member of that name, nullptr if there is none or this is no object.
  const Json* find(const char* name) const;

  // A number written without fraction or exponent that fits; false otherwise.
  bool to_integer(int64_t* value) const;
};

// Reads one value from `begin`, moving it past the value. False, with a reason, on anything malformed.
bool read_json(const char** begin, const char* end, Json* value, std::string* reason);

// Moves past white space.
const char* skip_space(const char* at, const char* end);

}  // namespace forerun

#endif
