// Runs the patterns of text.bin: backtracking, leftmost, the first alternative that lets the rest match.
#ifndef FORERUN_PATTERN_H
#define FORERUN_PATTERN_H

#include "text/buffer.h"
#include "text/text_file.h"

namespace forerun {

class Matcher {
 public:
  // Seeks the first match at or after `at` that is not empty; sets *first and *last, both `end` where there
  // is none. False if memory is refused, or if the pattern takes too long at one place (`gave_up`).
  bool find(const TextFile& file, uint32_t program, const char* at, const char* end, const char** first,
            const char** last);

  bool gave_up() const { return steps_ > kMostSteps; }

  // As many as Oniguruma, whose matches these are, goes back at one place.
  static constexpr uint64_t kMostSteps = 10000000;

 private:
  // Where to go on if what follows fails: at operation `pc`, at `at`, or at any code point between `least`
  // and it.
  struct Retreat {
    uint32_t pc;
    const char* at;
    const char* least;
  };

  // Where the match of the operations from `pc` to their end ends, nullptr if there is none.
  const char* run(uint32_t pc, const char* at, uint32_t depth);
  bool step(uint32_t* pc, const char** at, uint32_t depth);
  const char* take_run(const Operation& operation, uint32_t pc, const char* at);

  const TextFile* file_ = nullptr;
  const Operation* operations_ = nullptr;
  const char* end_ = nullptr;
  Buffer<Retreat> retreats_;
  uint64_t steps_ = 0;
  bool has_memory_ = true;
};

}  // namespace forerun

#endif
