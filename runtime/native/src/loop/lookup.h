// Prompt lookup: the last tokens occurred before, so propose what followed then.
#ifndef FORERUN_LOOP_LOOKUP_H
#define FORERUN_LOOP_LOOKUP_H

#include <memory>

#include "drafter.h"

namespace forerun {

struct LookupOptions {
  int32_t max_ngram = 4, min_ngram = 3, tokens = 7, branches = 1;
};

class Lookup : public Drafter, private Offering {
 public:
  Lookup(const LookupOptions& options, std::unique_ptr<Shape> shape)
      : options_(options), shape_(std::move(shape)) {}

  Status begin(const Beginning& beginning) override;
  Status propose(const Context& context, Draft* draft) override;

  // Tokens of the longest match of the text's end, 0 if there is none, and in `copied` up to `most` of those
  // that followed it most recently; *count says how many.
  int32_t match(const int32_t* token_ids, int32_t size, int32_t most, int32_t* copied, int32_t* count);

 private:
  struct Text {
    const int32_t* token_ids;
    int32_t count;

    // What a copy from `start` holds: past the end it goes on with itself, as a repetition does.
    int32_t copied(int32_t start, int32_t place) const { return token_ids[start + place % (count - start)]; }
  };

  int32_t sizes() const { return options_.max_ngram - options_.min_ngram + 1; }
  int32_t* latest(int32_t size) const { return latest_.as<int32_t>() + int64_t{size} * buckets_; }
  int32_t* earlier(int32_t size) const { return earlier_.as<int32_t>() + int64_t{size} * capacity_; }
  uint32_t bucket_of(const int32_t* ngram, int32_t size) const;
  void extend_index(const Text& text);
  int32_t next_match(const Text& text, int32_t size, int32_t after) const;
  int32_t find_continuations(const Text& text);
  bool is_known(const Text& text, int32_t start, int32_t found) const;
  Status offer(const Tree& tree, const int32_t* rows, int32_t count, int32_t width, Offers* offers) override;

  LookupOptions options_;
  std::unique_ptr<Shape> shape_;
  // Of every size, by bucket: the latest end of an n-gram with that hash, and by end the one before it.
  Region latest_;
  Region earlier_;
  Region starts_;  // of the continuations found
  int64_t buckets_ = 0;
  int64_t capacity_ = 0;
  int32_t indexed_ = 0;
  // While a shape picks: everything found, and the row of it behind each row of the growing tree.
  Tree found_;
  int32_t source_[kMostRows];
  int32_t resolved_ = 0;
};

}  // namespace forerun

#endif
