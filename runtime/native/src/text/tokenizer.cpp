#include "text/tokenizer.h"

#include <algorithm>

#include "text/compose.h"
#include "text/utf8.h"

namespace forerun {
namespace {

enum Behavior : uint32_t { kIsolated, kRemoved, kWithPrevious, kWithNext };

bool begins_with(const char* text, uint32_t size, Bytes start) {
  return size >= start.size && std::memcmp(text, start.data, start.size) == 0;
}

}  // namespace

Tokenizer::Tokenizer(const TextFile& file) : file_(file), merger_(file) {
  for (const AddedToken& token : file.added) {
    const bool normalized = (token.flags & AddedToken::kNormalized) != 0;
    begins_added_[normalized][static_cast<uint8_t>(file.string(token.text).data[0])] = true;
  }
}

Status Tokenizer::encode(const char* text, uint64_t size, Buffer<int32_t>* ids) {
  // A byte grows to three at most where it is no UTF-8, and normalization at most triples a text again.
  if (size > UINT32_MAX / 16) {
    return fail(FORERUN_INVALID_ARGUMENT, "the text has %llu bytes; at most %u can be read at a time",
                static_cast<unsigned long long>(size), UINT32_MAX / 16);
  }
  const uint32_t before = ids->count();
  sound_.clear();
  if (add_sound(&sound_, text, size) && encode_sound(sound_.data(), sound_.count(), ids)) return FORERUN_OK;
  ids->cut(before);
  if (matcher_.gave_up()) {
    return fail(
        FORERUN_TEXT,
        "a pattern of this tokenizer takes more than %llu steps at one place of the text of %llu bytes; "
        "give the text in shorter parts",
        static_cast<unsigned long long>(Matcher::kMostSteps), static_cast<unsigned long long>(size));
  }
  return fail(FORERUN_OUT_OF_MEMORY, "there is no memory to read a text of %llu bytes",
              static_cast<unsigned long long>(size));
}

// ---- added tokens ----

const AddedToken* Tokenizer::added_at(const char* at, const char* end, bool normalized) const {
  const AddedToken* found = nullptr;
  uint32_t low = 0, high = file_.added.count;
  // Tokens that begin with the same bytes stand side by side; the one that is just these bytes comes first.
  for (uint32_t size = 1; low < high && at + size <= end; ++size) {
    const auto byte_of = [&](const AddedToken& token) {
      return static_cast<uint8_t>(file_.string(token.text).data[size - 1]);
    };
    const auto is_short = [&](const AddedToken& token) { return file_.string(token.text).size < size; };
    while (low < high && is_short(file_.added[low])) ++low;
    const auto byte = static_cast<uint8_t>(at[size - 1]);
    const AddedToken* first = file_.added.begin() + low;
    const AddedToken* last = file_.added.begin() + high;
    first = std::partition_point(first, last, [&](const AddedToken& token) { return byte_of(token) < byte; });
    last = std::partition_point(first, last, [&](const AddedToken& token) { return byte_of(token) == byte; });
    low = static_cast<uint32_t>(first - file_.added.begin());
    high = static_cast<uint32_t>(last - file_.added.begin());
    for (const AddedToken* token = first; token < last && file_.string(token->text).size == size; ++token) {
      if (((token->flags & AddedToken::kNormalized) != 0) == normalized) found = token;
    }
  }
  return found;
}

const char* Tokenizer::spaces_before(const char* at, const char* least) const {
  while (at > least) {
    const char* before = previous_point(at);
    const char* point = before;
    if (!file_.class_has(file_.settings.whitespace, next_point(&point))) break;
    at = before;
  }
  return at;
}

const char* Tokenizer::spaces_after(const char* at, const char* end) const {
  while (at < end) {
    const char* next = at;
    if (!file_.class_has(file_.settings.whitespace, next_point(&next))) break;
    at = next;
  }
  return at;
}

template <typename Visit>
bool Tokenizer::each_part(const char* text, uint32_t size, bool normalized, Visit visit) const {
  const char *end = text + size, *start = text;
  for (const char* at = text; at < end;) {
    const AddedToken* token =
        begins_added_[normalized][static_cast<uint8_t>(*at)] ? added_at(at, end, normalized) : nullptr;
    if (token == nullptr) {
      ++at;
      continue;
    }
    const char *first = at, *last = at + file_.string(token->text).size;
    at = last;
    // Its beginning may have gone as spaces after the token before; the library names it all the same.
    if (token->flags & AddedToken::kStripsLeft) first = spaces_before(first, start);
    if (token->flags & AddedToken::kStripsRight) last = spaces_after(last, end);
    if (first > start && !visit(start, first, nullptr)) return false;
    if (!visit(first, last, token)) return false;
    start = last;
  }
  return start == end || visit(start, end, nullptr);
}

// ---- a text, from outside in ----

bool Tokenizer::encode_sound(const char* text, uint32_t size, Buffer<int32_t>* ids) {
  return each_part(text, size, false, [&](const char* begin, const char* end, const AddedToken* token) {
    if (token != nullptr) return ids->add(static_cast<int32_t>(token->id));
    return encode_normalized(begin, static_cast<uint32_t>(end - begin), begin == text, ids);
  });
}

bool Tokenizer::encode_normalized(const char* text, uint32_t size, bool is_first, Buffer<int32_t>* ids) {
  now_->text.clear();
  now_->pieces.clear();
  if (!now_->text.add_all(text, size) || !now_->pieces.add({0, size, is_first})) return false;
  for (uint32_t i = 0; i < file_.settings.normalize_steps; ++i) {
    if (!apply(file_.steps[i])) return false;
  }
  // Cutting works on the drafts that this text is in.
  normalized_.clear();
  if (!normalized_.add_all(now_->text.data(), now_->text.count())) return false;
  const char* whole = normalized_.data();
  return each_part(
      whole, normalized_.count(), true, [&](const char* begin, const char* end, const AddedToken* token) {
        if (token != nullptr) return ids->add(static_cast<int32_t>(token->id));
        return encode_plain(begin, static_cast<uint32_t>(end - begin), is_first && begin == whole, ids);
      });
}

bool Tokenizer::encode_plain(const char* text, uint32_t size, bool is_first, Buffer<int32_t>* ids) {
  now_->text.clear();
  now_->pieces.clear();
  if (!now_->text.add_all(text, size) || !now_->pieces.add({0, size, is_first})) return false;
  for (uint32_t i = file_.settings.normalize_steps; i < file_.steps.count; ++i) {
    if (!apply(file_.steps[i])) return false;
  }
  for (uint32_t i = 0; i < now_->pieces.count(); ++i) {
    const Piece& piece = now_->pieces[i];
    if (!merger_.add_piece(now_->text.data() + piece.begin, piece.end - piece.begin, ids)) return false;
  }
  return true;
}

// ---- steps ----

bool Tokenizer::apply(const TextStep& step) {
  next_->text.clear();
  next_->pieces.clear();
  bool done = false;
  switch (step.kind) {
    case TextStep::kCut:
      done = cut(step);
      break;
    case TextStep::kPut:
      done = put(step);
      break;
    case TextStep::kSubstitute:
      done = substitute(step);
      break;
    default:
      done = compose();
  }
  std::swap(now_, next_);
  return done;
}

bool Tokenizer::keep(uint32_t begin, uint32_t end, bool is_first) {
  return begin == end || next_->pieces.add({begin, end, is_first});
}

bool Tokenizer::cut(const TextStep& step) {
  if (!next_->text.add_all(now_->text.data(), now_->text.count())) return false;
  for (uint32_t i = 0; i < now_->pieces.count(); ++i) {
    if (!cut_piece(step, now_->pieces[i])) return false;
  }
  return true;
}

bool Tokenizer::cut_piece(const TextStep& step, const Piece& piece) {
  const char* text = next_->text.data();
  uint32_t start = piece.begin, at = piece.begin;
  const auto is_first = [&](uint32_t begin) { return piece.is_first && begin == piece.begin; };
  while (at < piece.end) {
    const char *first, *last;
    if (!matcher_.find(file_, step.a, text + at, text + piece.end, &first, &last)) return false;
    if (first == last) break;
    const auto from = static_cast<uint32_t>(first - text), to = static_cast<uint32_t>(last - text);
    const uint32_t end = step.b == kWithPrevious ? to : from;
    if (!keep(start, end, is_first(start))) return false;
    if (step.b == kIsolated && !keep(from, to, is_first(from))) return false;
    start = step.b == kWithNext ? from : to;
    at = to;
  }
  return keep(start, piece.end, is_first(start));
}

bool Tokenizer::put(const TextStep& step) {
  const Bytes start = file_.string(step.a);
  for (uint32_t i = 0; i < now_->pieces.count(); ++i) {
    const Piece& piece = now_->pieces[i];
    const char* text = now_->text.data() + piece.begin;
    const uint32_t size = piece.end - piece.begin, begin = next_->text.count();
    const bool puts = size > 0 && !(step.b && !piece.is_first) && !(step.c && begins_with(text, size, start));
    if (puts && !next_->text.add_all(start.data, start.size)) return false;
    if (!next_->text.add_all(text, size)) return false;
    if (!keep(begin, next_->text.count(), piece.is_first)) return false;
  }
  return true;
}

bool Tokenizer::substitute(const TextStep& step) {
  const Bytes old = file_.string(step.a), fresh = file_.string(step.b);
  for (uint32_t i = 0; i < now_->pieces.count(); ++i) {
    const Piece& piece = now_->pieces[i];
    const char *at = now_->text.data() + piece.begin, *end = now_->text.data() + piece.end;
    const uint32_t begin = next_->text.count();
    while (at < end) {
      if (begins_with(at, static_cast<uint32_t>(end - at), old)) {
        if (!next_->text.add_all(fresh.data, fresh.size)) return false;
        at += old.size;
      } else if (!next_->text.add(*at++)) {
        return false;
      }
    }
    if (!keep(begin, next_->text.count(), piece.is_first)) return false;
  }
  return true;
}

bool Tokenizer::compose() {
  for (uint32_t i = 0; i < now_->pieces.count(); ++i) {
    const Piece& piece = now_->pieces[i];
    const uint32_t begin = next_->text.count();
    const char* text = now_->text.data() + piece.begin;
    if (!add_composed(file_, text, piece.end - piece.begin, &points_, &next_->text)) return false;
    if (!keep(begin, next_->text.count(), piece.is_first)) return false;
  }
  return true;
}

}  // namespace forerun
