#include "text/pattern.h"

#include "text/utf8.h"

namespace forerun {
namespace {

// Looks ahead may be nested so deep; compiler/text/patterns.py refuses deeper ones.
constexpr uint32_t kDeepest = 8;

}  // namespace

bool Matcher::find(const TextFile& file, uint32_t program, const char* at, const char* end,
                   const char** first, const char** last) {
  file_ = &file;
  operations_ = file.operations.data + file.programs[2 * program];
  end_ = end;
  has_memory_ = true;
  for (; at < end; next_point(&at)) {
    steps_ = 0;
    retreats_.clear();
    const char* found = run(0, at, 0);
    if (!has_memory_ || gave_up()) return false;
    if (found != nullptr && found > at) {
      *first = at;
      *last = found;
      return true;
    }
  }
  *first = *last = end;
  return true;
}

const char* Matcher::run(uint32_t pc, const char* at, uint32_t depth) {
  const uint32_t base = retreats_.count();
  if (depth > kDeepest) return nullptr;
  while (operations_[pc].kind != Operation::kMatch) {
    if (++steps_ > kMostSteps || !has_memory_) return nullptr;
    if (step(&pc, &at, depth)) continue;
    if (!has_memory_ || gave_up() || retreats_.count() == base) {
      retreats_.cut(base);
      return nullptr;
    }
    Retreat& retreat = retreats_.last();
    pc = retreat.pc;
    at = retreat.at;
    if (retreat.at > retreat.least) {
      retreat.at = previous_point(retreat.at);
    } else {
      retreats_.drop_last();
    }
  }
  retreats_.cut(base);
  return at;
}

// Runs one operation; false if it fails.
bool Matcher::step(uint32_t* pc, const char** at, uint32_t depth) {
  const Operation& operation = operations_[*pc];
  if (operation.kind == Operation::kRun) {
    *at = take_run(operation, ++*pc, *at);
    return *at != nullptr;
  }
  if (operation.kind == Operation::kSplit) {
    has_memory_ = has_memory_ && retreats_.add({operation.b, *at, *at});
    *pc = operation.a;
    return has_memory_;
  }
  if (operation.kind != Operation::kJump) {
    const bool is_there = run(*pc + 1, *at, depth + 1) != nullptr;
    if (is_there != (operation.kind == Operation::kProvided)) return false;
  }
  *pc = operation.a;
  return true;
}

// Takes as many as there are and remembers that fewer may do.
const char* Matcher::take_run(const Operation& operation, uint32_t pc, const char* at) {
  const char* least = operation.b == 0 ? at : nullptr;
  uint32_t count = 0;
  while (count < operation.c && at < end_) {
    const char* next = at;
    if (!file_->class_has(operation.a, next_point(&next))) break;
    at = next;
    if (++count == operation.b) least = at;
  }
  if (least == nullptr) return nullptr;
  if (at > least) {
    has_memory_ = has_memory_ && retreats_.add({pc, previous_point(at), least});
    if (!has_memory_) return nullptr;
  }
  return at;
}

}  // namespace forerun
