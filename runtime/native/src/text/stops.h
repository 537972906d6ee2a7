// Cuts text before the first stop string; holds back an end that could still become one. runtime/output.py is
// the definition.
#ifndef FORERUN_STOPS_H
#define FORERUN_STOPS_H

#include "text/buffer.h"
#include "text/text_file.h"

namespace forerun {

class StopMatcher {
 public:
  // Takes copies of the texts, which must be sound and not empty. False if memory is refused, as in all
  // below.
  bool open(const char* const* stops, uint32_t count);

  // Room for a piece of so many bytes, after which feeding it cannot fail.
  bool reserve(uint64_t bytes) { return longest_ == 0 || text_.reserve(text_.count() + bytes); }

  // Room for any answer whose pieces have at most so many bytes.
  bool reserve_all(uint64_t bytes) { return longest_ == 0 || text_.reserve(longest_ + 2 * bytes); }

  // The text that is safe to show; after a match the text before it, then nothing more. Valid until the next
  // call.
  bool feed(Bytes piece, Bytes* safe);

  // The same, and all that was held back, now that nothing more will come.
  bool flush(Bytes piece, Bytes* safe);

  // A new answer begins.
  void begin() { matched_ = false; }

  bool matched() const { return matched_; }

 private:
  Bytes stop(uint32_t number) const {
    return {stops_.data() + starts_[number], starts_[number + 1] - starts_[number]};
  }
  bool take(Bytes piece);
  // Where the first stop string begins, the end of the text if there is none.
  uint32_t find() const;
  // Length of the longest end of the text that begins a stop string.
  uint32_t overlap() const;

  Buffer<char> stops_;
  Buffer<uint32_t> starts_;  // of the stop strings, and the end of the last
  Buffer<char> text_;        // what was given, then what is held back
  uint32_t given_ = 0;
  uint32_t longest_ = 0;
  bool matched_ = false;
};

}  // namespace forerun

#endif
