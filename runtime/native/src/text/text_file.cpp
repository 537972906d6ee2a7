#include "text/text_file.h"

#include <algorithm>
#include <cstring>

namespace forerun {
namespace {

constexpr char kMagic[8] = {'F', 'R', 'T', 'E', 'X', 'T', 0, 1};
constexpr uint32_t kSections = 24;

Status damaged(const char* what) {
  return fail(FORERUN_TEXT, "text.bin %s; it is damaged: compile the bundle again", what);
}

class Sections {
 public:
  Sections(const uint8_t* data, size_t bytes) : data_(data), bytes_(bytes) {}

  // The next section as a span of T.
  template <typename T>
  bool take(Span<T>* span) {
    uint64_t place[2];
    std::memcpy(place, data_ + sizeof kMagic + 16 * next_++, sizeof place);
    const uint64_t offset = place[0], size = place[1];
    if (offset % 8 != 0 || offset > bytes_ || size > bytes_ - offset || size % sizeof(T) != 0) return false;
    if (size / sizeof(T) >= kNone) return false;
    span->data = reinterpret_cast<const T*>(data_ + offset);
    span->count = static_cast<uint32_t>(size / sizeof(T));
    return true;
  }

 private:
  const uint8_t* data_;
  size_t bytes_;
  uint32_t next_ = 0;
};

}  // namespace

Status TextFile::open(const uint8_t* data, size_t bytes) {
  if (bytes < sizeof kMagic + 16 * kSections || std::memcmp(data, kMagic, sizeof kMagic) != 0) {
    return damaged("does not begin as one");
  }
  Sections sections(data, bytes);
  Span<TextSettings> given;
  const bool taken = sections.take(&given) && sections.take(&token_starts) && sections.take(&token_bytes) &&
                     sections.take(&token_flags) && sections.take(&byte_ids) && sections.take(&merges) &&
                     sections.take(&merge_slots) && sections.take(&symbols) && sections.take(&piece_slots) &&
                     sections.take(&steps) && sections.take(&programs) && sections.take(&operations) &&
                     sections.take(&class_starts) && sections.take(&ranges) &&
                     sections.take(&string_starts) && sections.take(&string_bytes) && sections.take(&added) &&
                     sections.take(&decompositions) && sections.take(&decomposed) && sections.take(&marks) &&
                     sections.take(&compositions) && sections.take(&end_ids) && sections.take(&chat) &&
                     sections.take(&refused);
  if (!taken || given.count != 1) return damaged("has a section that is out of its bounds");
  settings = given[0];
  if (const char* what = fault()) return damaged(what);
  for (uint32_t id = 0; id < settings.vocabulary_size; ++id) {
    longest_token = std::max(longest_token, token(id).size);
  }
  return FORERUN_OK;
}

bool TextFile::class_has(uint32_t number, uint32_t point) const {
  uint32_t low = class_starts[number], high = class_starts[number + 1];
  while (low < high) {
    const uint32_t middle = (low + high) / 2;
    if (point > ranges[2 * middle + 1]) {
      low = middle + 1;
    } else if (point < ranges[2 * middle]) {
      high = middle;
    } else {
      return true;
    }
  }
  return false;
}

}  // namespace forerun
