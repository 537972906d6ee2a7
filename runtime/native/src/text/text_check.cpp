// Whether a text.bin holds what its readers rely on.

#include <cstring>

#include "text/text_file.h"
#include "text/utf8.h"

namespace forerun {
namespace {

constexpr uint32_t kPoints = 0x110000;  // code points are below

// Whether `starts` begin at 0, never fall and end at `size`.
bool are_starts(const Span<uint32_t>& starts, uint32_t size) {
  if (starts.count == 0 || starts[0] != 0 || starts[starts.count - 1] != size) return false;
  for (uint32_t i = 1; i < starts.count; ++i) {
    if (starts[i] < starts[i - 1]) return false;
  }
  return true;
}

// A hash table of values below `limit`: a power of two of slots, one of them empty, so that every search
// ends.
bool is_table(const Span<uint32_t>& slots, uint32_t limit) {
  if (slots.count == 0 || (slots.count & (slots.count - 1)) != 0) return false;
  bool has_room = false;
  for (uint32_t slot : slots) {
    has_room = has_room || slot == kNone;
    if (slot != kNone && slot >= limit) return false;
  }
  return has_room;
}

bool are_symbols(const Span<uint32_t>& pairs, uint32_t vocabulary) {
  const uint32_t slots = pairs.count / 2;
  if (pairs.count % 2 != 0 || slots == 0 || (slots & (slots - 1)) != 0) return false;
  bool has_room = false;
  for (uint32_t i = 0; i < slots; ++i) {
    has_room = has_room || pairs[2 * i] == kNone;
    if (pairs[2 * i] != kNone && pairs[2 * i + 1] >= vocabulary) return false;
  }
  return has_room;
}

bool is_operation(const Operation& operation, uint32_t count, uint32_t classes) {
  switch (operation.kind) {
    case Operation::kRun:
      return operation.a < classes && operation.b <= operation.c;
    case Operation::kSplit:
      return operation.a < count && operation.b < count;
    case Operation::kJump:
    case Operation::kUnless:
    case Operation::kProvided:
      return operation.a < count;
    default:
      return operation.kind == Operation::kMatch;
  }
}

bool are_programs(const TextFile& file) {
  if (file.programs.count % 2 != 0) return false;
  for (uint32_t i = 0; i < file.programs.count; i += 2) {
    const uint32_t first = file.programs[i], count = file.programs[i + 1];
    if (first > file.operations.count || count > file.operations.count - first) return false;
    // Nothing runs past the end.
    if (count == 0 || file.operations[first + count - 1].kind != Operation::kMatch) return false;
    for (uint32_t k = first; k < first + count; ++k) {
      if (!is_operation(file.operations[k], count, file.class_starts.count - 1)) return false;
    }
  }
  return true;
}

bool are_steps(const TextFile& file) {
  const uint32_t strings = file.string_starts.count - 1;
  for (const TextStep& step : file.steps) {
    if (step.kind == TextStep::kCut && (step.a >= file.programs.count / 2 || step.b > 3)) return false;
    if (step.kind == TextStep::kPut && step.a >= strings) return false;
    if (step.kind == TextStep::kSubstitute &&
        (step.a >= strings || step.b >= strings || file.string(step.a).size == 0)) {
      return false;
    }
    if (step.kind > TextStep::kCompose) return false;
  }
  return file.settings.normalize_steps <= file.steps.count;
}

// Whether the first of every `width` numbers rises, so that it can be searched for.
bool rises(const Span<uint32_t>& rows, uint32_t width) {
  for (uint32_t i = width; i < rows.count; i += width) {
    if (rows[i] <= rows[i - width]) return false;
  }
  return rows.count % width == 0;
}

bool are_compositions(const TextFile& file) {
  if (!rises(file.decompositions, 3) || !rises(file.marks, 2) || file.compositions.count % 3 != 0)
    return false;
  for (uint32_t i = 0; i < file.decompositions.count; i += 3) {
    const uint32_t first = file.decompositions[i + 1], count = file.decompositions[i + 2];
    if (first > file.decomposed.count || count > file.decomposed.count - first) return false;
  }
  for (uint32_t point : file.decomposed) {
    if (point >= kPoints) return false;
  }
  for (uint32_t i = 0; i < file.compositions.count; i += 3) {
    if (file.compositions[i + 2] >= kPoints) return false;
    if (i == 0) continue;
    const uint64_t before = uint64_t{file.compositions[i - 3]} << 32 | file.compositions[i - 2];
    if ((uint64_t{file.compositions[i]} << 32 | file.compositions[i + 1]) <= before) return false;
  }
  return true;
}

// All readers step through texts by code points, so that one that is cut off would be read past its end.
bool are_sound(const TextFile& file) {
  for (uint32_t i = 0; i + 1 < file.string_starts.count; ++i) {
    const Bytes text = file.string(i);
    if (!is_sound(text.data, text.data + text.size)) return false;
  }
  return true;
}

bool are_texts(const TextFile& file) {
  const uint32_t vocabulary = file.settings.vocabulary_size;
  return vocabulary != kNone && file.token_starts.count == vocabulary + 1 &&
         file.token_flags.count == vocabulary && are_starts(file.token_starts, file.token_bytes.count) &&
         are_starts(file.string_starts, file.string_bytes.count) && are_sound(file);
}

bool are_classes(const TextFile& file) {
  return file.class_starts.count > 0 && file.ranges.count % 2 == 0 &&
         are_starts(file.class_starts, file.ranges.count / 2) &&
         file.settings.whitespace < file.class_starts.count - 1 &&
         file.settings.chat_spaces < file.class_starts.count - 1;
}

bool are_ids(const TextFile& file) {
  const uint32_t vocabulary = file.settings.vocabulary_size;
  const auto is_id = [&](uint32_t id) { return id == kNone || id < vocabulary; };
  if (file.byte_ids.count != 256 || !is_id(file.settings.unknown_id)) return false;
  for (uint32_t id : file.byte_ids) {
    if (!is_id(id)) return false;
  }
  for (const Merge& merge : file.merges) {
    if (merge.left >= vocabulary || merge.right >= vocabulary || merge.merged >= vocabulary) return false;
  }
  return true;
}

// Tokens are sought by their first bytes, so they must be in order.
bool are_added(const TextFile& file) {
  for (uint32_t i = 0; i < file.added.count; ++i) {
    const AddedToken& token = file.added[i];
    if (token.text >= file.string_starts.count - 1 || token.id >= file.settings.vocabulary_size) return false;
    const Bytes text = file.string(token.text);
    if (text.size == 0) return false;
    if (i == 0) continue;
    const Bytes before = file.string(file.added[i - 1].text);
    const int order = std::memcmp(before.data, text.data, before.size < text.size ? before.size : text.size);
    if (order > 0 || (order == 0 && before.size > text.size)) return false;
  }
  return true;
}

bool is_chat(const TextFile& file) {
  const uint32_t strings = file.string_starts.count - 1;
  const auto is_text = [&](uint32_t text) { return text == kNone || text < strings; };
  if (file.chat.count > 1 || !is_text(file.settings.chat_refusal) || !is_text(file.settings.mark))
    return false;
  if (file.settings.mark != kNone && file.string(file.settings.mark).size == 0) return false;
  if (file.chat.count == 0) return file.settings.chat_refusal != kNone;
  const ChatTable& table = file.chat[0];
  for (uint32_t role = 0; role < kRoles; ++role) {
    for (const auto& joints : table.joints) {
      if (!is_text(joints[role])) return false;
    }
    if (!is_text(table.ends[role])) return false;
  }
  for (const Refused& refused : file.refused) {
    if (refused.role >= kRoles || refused.text >= strings || file.string(refused.text).size == 0)
      return false;
  }
  return true;
}

}  // namespace

const char* TextFile::fault() const {
  if (!are_texts(*this)) return "has texts that are out of their bounds";
  if (!are_ids(*this)) return "names tokens that do not exist";
  if (!is_table(merge_slots, merges.count) ||
      (!settings.byte_level && !are_symbols(symbols, settings.vocabulary_size)) ||
      (settings.whole_pieces && !is_table(piece_slots, settings.vocabulary_size))) {
    return "has a table that cannot be searched";
  }
  if (!are_classes(*this)) return "has classes that are out of their bounds";
  if (!are_programs(*this)) return "has a pattern that is out of its bounds";
  if (!are_steps(*this)) return "has a step that does not exist";
  if (!are_added(*this)) return "has added tokens that are out of order";
  if (!are_compositions(*this)) return "has compositions that are out of order";
  return is_chat(*this) ? nullptr : "has a chat that is not whole";
}

}  // namespace forerun
