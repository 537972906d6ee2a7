// Specs such as `lookup:tokens=4`: a name and options, as the Python registries read them.
#ifndef FORERUN_LOOP_SPEC_H
#define FORERUN_LOOP_SPEC_H

#include <cstdint>

#include "../status.h"

namespace forerun {

// A list of whole numbers, written 3+7+9.
struct Numbers {
  static constexpr int32_t kMost = 64;
  int32_t count = 0;
  int32_t values[kMost];
};

class Spec {
 public:
  // `kind` is the word for messages, such as "drafter".
  Status parse(const char* kind, const char* text);

  const char* name() const { return name_; }
  bool is(const char* name) const;

  // Each reads the option of that name into *value if it is given.
  Status take(const char* option, int32_t* value);
  Status take(const char* option, double* value);
  Status take(const char* option, Numbers* value);
  Status take(const char* option, const char** value);  // lives as long as the spec

  // Refuses options that nothing took.
  Status finish();

  Status unknown_name(const char* known) const;

 private:
  static constexpr int32_t kMostOptions = 12;
  static constexpr int32_t kMostBytes = 512;

  struct Option {
    const char* name;
    const char* value;
    bool taken;
  };

  Option* find(const char* option);
  Status wrong(const Option& option, const char* meaning) const;

  const char* kind_ = "";
  const char* name_ = "";
  char text_[kMostBytes];
  int32_t count_ = 0;
  Option options_[kMostOptions];
  char allowed_[256];  // names of the options that were asked for
};

}  // namespace forerun

#endif
