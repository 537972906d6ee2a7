#include "lookup.h"

#include <algorithm>
#include <cstring>

#include "../sampling.h"
#include "generator.h"

namespace forerun {
namespace {

// Occurrences of one n-gram that are looked through for distinct continuations.
constexpr int32_t kOccurrences = 32;
constexpr int32_t kNone = -1;

}  // namespace

Status Lookup::begin(const Beginning& beginning) {
  const int64_t capacity = int64_t{beginning.generator->session->options.capacity} + 1;
  if (capacity_ == 0) {
    int64_t buckets = 64;
    while (buckets < capacity) buckets *= 2;
    FORERUN_TRY(latest_.reserve(static_cast<uint64_t>(sizes() * buckets), sizeof(int32_t), "lookup"));
    FORERUN_TRY(earlier_.reserve(static_cast<uint64_t>(sizes() * capacity), sizeof(int32_t), "lookup"));
    const int64_t most = std::min<int64_t>(int64_t{sizes()} * kOccurrences, options_.branches);
    FORERUN_TRY(starts_.reserve(static_cast<uint64_t>(most), sizeof(int32_t), "lookup"));
    buckets_ = buckets;
    capacity_ = capacity;
  }
  std::memset(latest_.as<int32_t>(), 0xFF, static_cast<size_t>(sizes() * buckets_) * sizeof(int32_t));
  indexed_ = 0;
  return FORERUN_OK;
}

uint32_t Lookup::bucket_of(const int32_t* ngram, int32_t size) const {
  uint64_t hash = static_cast<uint64_t>(size);
  for (int32_t i = 0; i < size; ++i) hash = mix(hash ^ static_cast<uint32_t>(ngram[i]));
  return static_cast<uint32_t>(hash) & static_cast<uint32_t>(buckets_ - 1);
}

// Enters every n-gram that is followed by a token.
void Lookup::extend_index(const Text& text) {
  for (int32_t end = std::max(indexed_, 1); end < text.count; ++end) {
    for (int32_t i = 0; i < sizes(); ++i) {
      const int32_t size = options_.min_ngram + i;
      if (size > end) break;
      int32_t* const newest = &latest(i)[bucket_of(text.token_ids + end - size, size)];
      earlier(i)[end] = *newest;
      *newest = end;
    }
  }
  indexed_ = text.count;
}

// The latest end before `after` (kNone: of all) of an n-gram like the text's last `size` tokens, kNone if
// there is none.
int32_t Lookup::next_match(const Text& text, int32_t size, int32_t after) const {
  const int32_t i = size - options_.min_ngram;
  const int32_t* const last = text.token_ids + text.count - size;
  int32_t end = after == kNone ? latest(i)[bucket_of(last, size)] : earlier(i)[after];
  while (end != kNone && !std::equal(last, last + size, text.token_ids + end - size)) end = earlier(i)[end];
  return end;
}

int32_t Lookup::match(const int32_t* token_ids, int32_t size, int32_t most, int32_t* copied, int32_t* count) {
  const Text text{token_ids, size};
  extend_index(text);
  *count = 0;
  for (int32_t length = std::min(options_.max_ngram, size); length >= options_.min_ngram; --length) {
    const int32_t start = next_match(text, length, kNone);
    if (start == kNone) continue;
    *count = std::min(most, options_.tokens);
    for (int32_t i = 0; i < *count; ++i) copied[i] = text.copied(start, i);
    return length;
  }
  return 0;
}

// Whether the continuation from `start` is one of the first `found`.
bool Lookup::is_known(const Text& text, int32_t start, int32_t found) const {
  const int32_t* const starts = starts_.as<int32_t>();
  for (int32_t i = 0; i < found; ++i) {
    int32_t place = 0;
    while (place < options_.tokens && text.copied(starts[i], place) == text.copied(start, place)) ++place;
    if (place == options_.tokens) return true;
  }
  return false;
}

// Distinct continuations, of the longest match first and the most recent first among equals.
int32_t Lookup::find_continuations(const Text& text) {
  int32_t found = 0;
  for (int32_t size = std::min(options_.max_ngram, text.count); size >= options_.min_ngram; --size) {
    int32_t end = next_match(text, size, kNone);
    for (int32_t seen = 0; end != kNone && seen < kOccurrences; ++seen) {
      if (!is_known(text, end, found)) starts_.as<int32_t>()[found++] = end;
      if (found == options_.branches) return found;
      end = next_match(text, size, end);
    }
  }
  return found;
}

Status Lookup::propose(const Context& context, Draft* draft) {
  const Text text{context.token_ids, context.count};
  extend_index(text);
  draft->tree.start(context.root());
  if (!context.has_room()) return FORERUN_OK;
  const int32_t found = find_continuations(text);
  for (int32_t i = 0; i < found; ++i) {
    int32_t row = 0;
    const int32_t tokens = std::min(options_.tokens, context.limits.depth);
    for (int32_t place = 0; place < tokens; ++place) {
      row = draft->tree.child_or_add(row, text.copied(starts_.as<int32_t>()[i], place));
      if (row < 0) break;
    }
  }
  draft->tree.limit(context.limits.rows, context.limits.depth);
  if (!shape_) return FORERUN_OK;
  found_ = draft->tree;
  source_[0] = 0;
  resolved_ = 1;
  return grow(context.root(), shape_.get(), context.limits, this, context.offers, &draft->tree);
}

// Lets a shape choose from the merged continuations, siblings ranked by how recent they are.
Status Lookup::offer(const Tree& tree, const int32_t* rows, int32_t count, int32_t width, Offers* offers) {
  // Rows added since the last call are resolved now: the shape, not this function, chose them.
  for (; resolved_ < tree.count; ++resolved_) {
    source_[resolved_] = found_.child(source_[tree.parents[resolved_]], tree.token_ids[resolved_]);
  }
  for (int32_t i = 0; i < count; ++i) {
    const int32_t above = source_[rows[i]];
    int32_t rank = 0;
    for (int32_t below = above + 1; below < found_.count && rank < width; ++below) {
      if (found_.parents[below] == above) offers->add(rows[i], found_.token_ids[below], rank++, 1);
    }
  }
  return FORERUN_OK;
}

}  // namespace forerun
