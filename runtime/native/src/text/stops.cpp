#include "text/stops.h"

#include <algorithm>

namespace forerun {

bool StopMatcher::open(const char* const* stops, uint32_t count) {
  if (!starts_.add(0)) return false;
  for (uint32_t i = 0; i < count; ++i) {
    const auto size = static_cast<uint32_t>(std::strlen(stops[i]));
    if (!stops_.add_all(stops[i], size) || !starts_.add(stops_.count())) return false;
    longest_ = std::max(longest_, size);
  }
  return true;
}

bool StopMatcher::take(Bytes piece) {
  if (given_ > 0) {
    std::memmove(text_.data(), text_.data() + given_, text_.count() - given_);
    text_.cut(text_.count() - given_);
    given_ = 0;
  }
  if (!matched_ && !text_.add_all(piece.data, piece.size)) return false;
  const uint32_t found = matched_ ? 0 : find();
  matched_ = matched_ || found < text_.count();
  text_.cut(found);
  return true;
}

bool StopMatcher::feed(Bytes piece, Bytes* safe) {
  if (longest_ == 0) {
    *safe = piece;
    return true;
  }
  if (!take(piece)) return false;
  given_ = text_.count() - (matched_ ? 0 : overlap());
  *safe = {text_.data(), given_};
  return true;
}

bool StopMatcher::flush(Bytes piece, Bytes* safe) {
  if (longest_ == 0) {
    *safe = piece;
    return true;
  }
  if (!take(piece)) return false;
  given_ = text_.count();
  *safe = {text_.data(), given_};
  return true;
}

uint32_t StopMatcher::find() const {
  for (uint32_t at = 0; at < text_.count(); ++at) {
    for (uint32_t i = 0; i + 1 < starts_.count(); ++i) {
      const Bytes one = stop(i);
      if (one.size <= text_.count() - at && std::memcmp(text_.data() + at, one.data, one.size) == 0)
        return at;
    }
  }
  return text_.count();
}

uint32_t StopMatcher::overlap() const {
  uint32_t longest = 0;
  for (uint32_t i = 0; i + 1 < starts_.count(); ++i) {
    const Bytes one = stop(i);
    for (uint32_t size = std::min(text_.count(), one.size - 1); size > longest; --size) {
      if (std::memcmp(text_.data() + text_.count() - size, one.data, size) == 0) longest = size;
    }
  }
  return longest;
}

}  // namespace forerun
