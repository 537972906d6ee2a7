#include "text/decoder.h"

#include <cstring>

#include "text/utf8.h"

namespace forerun {
namespace {

constexpr uint32_t kReplacement = 0xFFFD;
constexpr char kReplacementBytes[] = "\xEF\xBF\xBD";
bool is_written(const TextFile& file, int32_t id) {
  const auto number = static_cast<uint32_t>(id);
  return number < file.settings.vocabulary_size && (file.token_flags[number] & (kSpecial | kAbsent)) == 0;
}

// Ends a run of bytes. Where single tokens are bytes, one that is no UTF-8 makes them all replacements.
bool add_run(const TextFile& file, Buffer<char>* run, Buffer<char>* text) {
  const uint32_t count = run->count();
  const char* bytes = run->data();
  run->clear();
  if (file.settings.byte_level) return add_sound(text, bytes, count);
  if (is_sound(bytes, bytes + count)) return text->add_all(bytes, count);
  for (uint32_t i = 0; i < count; ++i) {
    if (!add_point(text, kReplacement)) return false;
  }
  return true;
}

// A token that is no bytes. Its marks are spaces, in the first token nothing.
bool add_token(const TextFile& file, Bytes token, bool is_first, Buffer<char>* text) {
  if (!is_first && file.settings.separates && !text->add(' ')) return false;
  if (file.settings.mark == kNone) return add_sound(text, token.data, token.size);
  const Bytes mark = file.string(file.settings.mark);
  const char *from = token.data, *end = token.data + token.size;
  for (const char* at = from; at < end;) {
    if (static_cast<uint64_t>(end - at) < mark.size || std::memcmp(at, mark.data, mark.size) != 0) {
      ++at;
      continue;
    }
    if (!add_sound(text, from, static_cast<uint64_t>(at - from))) return false;
    if (!is_first && !text->add(' ')) return false;
    from = at += mark.size;
  }
  return add_sound(text, from, static_cast<uint64_t>(end - from));
}

void strip(uint32_t most, uint32_t start, Buffer<char>* text) {
  uint32_t end = start;
  while (end < text->count() && end - start < most && (*text)[end] == ' ') ++end;
  if (end == start) return;
  std::memmove(text->data() + start, text->data() + end, text->count() - end);
  text->cut(text->count() - (end - start));
}

uint32_t count_points(const Buffer<char>& text) {
  uint32_t count = 0;
  for (uint32_t i = 0; i < text.count(); ++i) count += (static_cast<uint8_t>(text[i]) & 0xC0) != 0x80;
  return count;
}

}  // namespace

bool add_decoded(const TextFile& file, const int32_t* ids, uint32_t count, Buffer<char>* run,
                 Buffer<char>* text) {
  const TextSettings& settings = file.settings;
  const uint32_t start = text->count();
  bool is_first = true;
  run->clear();
  for (uint32_t i = 0; i < count; ++i) {
    if (!is_written(file, ids[i])) continue;
    const auto id = static_cast<uint32_t>(ids[i]);
    const Bytes token = file.token(id);
    const bool is_bytes =
        settings.byte_level || (settings.decodes_fallback && (file.token_flags[id] & kByte) != 0);
    const bool added = is_bytes ? run->add_all(token.data, token.size)
                                : add_run(file, run, text) && add_token(file, token, is_first, text);
    if (!added) return false;
    is_first = false;
  }
  if (!add_run(file, run, text)) return false;
  strip(settings.strips, start, text);
  return true;
}

uint64_t Detokenizer::most_bytes(uint32_t tokens) const {
  // Each byte that is no UTF-8 becomes three; a space may stand before each token.
  return uint64_t{3} * tokens * (file_.longest_token + 1);
}

bool Detokenizer::reserve() {
  const uint64_t bytes = most_bytes(kWindow);
  return window_.reserve(kWindow) && run_.reserve(bytes) && text_.reserve(bytes) && context_.reserve(bytes);
}

Bytes Detokenizer::after_context() const {
  uint32_t at = 0;
  for (uint32_t left = context_points_; at < text_.count(); ++at) {
    const bool begins = (static_cast<uint8_t>(text_[at]) & 0xC0) != 0x80;
    if (begins && left-- == 0) break;
  }
  return {text_.data() + at, text_.count() - at};
}

bool Detokenizer::feed(int32_t id, Bytes* piece) {
  *piece = {};
  // Says nothing, so that whatever is held back stays so.
  if (!is_written(file_, id)) return true;
  if (!window_.add(id)) return false;
  text_.clear();
  context_.clear();
  const int32_t* fresh = window_.data() + context_tokens_;
  const uint32_t fresh_tokens = window_.count() - context_tokens_;
  if (!add_decoded(file_, window_.data(), window_.count(), &run_, &text_) ||
      !add_decoded(file_, fresh, fresh_tokens, &run_, &context_)) {
    window_.drop_last();
    return false;
  }
  // Replacement characters at the end may be a character whose last bytes are still to come.
  const Bytes rest = after_context();
  const char* last = text_.data() + text_.count() - 3;
  if (rest.size == 0 || (text_.count() >= 3 && std::memcmp(last, kReplacementBytes, 3) == 0)) return true;
  std::memmove(window_.data(), fresh, fresh_tokens * sizeof(int32_t));
  window_.cut(fresh_tokens);
  context_tokens_ = fresh_tokens;
  context_points_ = count_points(context_);
  *piece = rest;
  return true;
}

bool Detokenizer::flush(Bytes* piece) {
  text_.clear();
  if (!add_decoded(file_, window_.data(), window_.count(), &run_, &text_)) return false;
  *piece = after_context();
  window_.clear();
  context_tokens_ = context_points_ = 0;
  return true;
}

}  // namespace forerun
