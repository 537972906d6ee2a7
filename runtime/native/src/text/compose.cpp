// Unicode Standard Annex #15: decompose, bring marks into order, compose. Hangul by arithmetic
// (chapter 3.12).

#include "text/compose.h"

#include <algorithm>

#include "text/utf8.h"

namespace forerun {
namespace {

constexpr uint32_t kSyllables = 0xAC00, kLeading = 0x1100, kVowels = 0x1161, kTrailing = 0x11A7;
constexpr uint32_t kLeadingCount = 19, kVowelCount = 21, kTrailingCount = 28;
constexpr uint32_t kSyllableCount = kLeadingCount * kVowelCount * kTrailingCount;

// The row that begins with `key` among rows of `width` numbers, sorted by their first; nullptr if there is
// none.
const uint32_t* find_row(const Span<uint32_t>& rows, uint32_t width, uint32_t key) {
  uint32_t low = 0, high = rows.count / width;
  while (low < high) {
    const uint32_t middle = (low + high) / 2;
    if (rows[middle * width] < key) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low < rows.count / width && rows[low * width] == key ? rows.data + low * width : nullptr;
}

uint32_t rank_of(const TextFile& file, uint32_t point) {
  const uint32_t* row = point < 0x300 ? nullptr : find_row(file.marks, 2, point);
  return row == nullptr ? 0 : row[1];
}

bool add_decomposed(const TextFile& file, uint32_t point, Buffer<uint32_t>* points) {
  if (point < 0xC0) return points->add(point);
  if (point - kSyllables < kSyllableCount) {
    const uint32_t index = point - kSyllables, trailing = index % kTrailingCount;
    return points->add(kLeading + index / (kVowelCount * kTrailingCount)) &&
           points->add(kVowels + index / kTrailingCount % kVowelCount) &&
           (trailing == 0 || points->add(kTrailing + trailing));
  }
  const uint32_t* row = find_row(file.decompositions, 3, point);
  if (row == nullptr) return points->add(point);
  return points->add_all(file.decomposed.data + row[1], row[2]);
}

// What two code points are together, kNone if they stay two.
uint32_t composed_of(const TextFile& file, uint32_t first, uint32_t second) {
  if (first - kLeading < kLeadingCount && second - kVowels < kVowelCount) {
    return kSyllables + ((first - kLeading) * kVowelCount + second - kVowels) * kTrailingCount;
  }
  if (first - kSyllables < kSyllableCount && (first - kSyllables) % kTrailingCount == 0 &&
      second - kTrailing - 1 < kTrailingCount - 1) {
    return first + second - kTrailing;
  }
  const Span<uint32_t>& rows = file.compositions;
  uint32_t low = 0, high = rows.count / 3;
  while (low < high) {
    const uint32_t middle = (low + high) / 2, *row = rows.data + 3 * middle;
    if (row[0] != first ? row[0] < first : row[1] < second) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  const uint32_t* row = rows.data + 3 * low;
  return low < rows.count / 3 && row[0] == first && row[1] == second ? row[2] : kNone;
}

}  // namespace

bool add_composed(const TextFile& file, const char* text, uint32_t size, Buffer<uint32_t>* points,
                  Buffer<char>* composed) {
  points->clear();
  for (const char *at = text, *end = text + size; at < end;) {
    if (!add_decomposed(file, next_point(&at), points)) return false;
  }
  // Marks between two starters are put in order of their classes; those of one class stay as they are.
  const uint32_t count = points->count();
  for (uint32_t i = 0; i < count;) {
    uint32_t end = i;
    while (end < count && rank_of(file, (*points)[end]) != 0) ++end;
    if (end > i + 1) {
      std::stable_sort(points->data() + i, points->data() + end,
                       [&](uint32_t a, uint32_t b) { return rank_of(file, a) < rank_of(file, b); });
    }
    i = end + (end == i);
  }
  // Each mark joins the last starter, unless one of its class or a higher one stands between.
  uint32_t kept = 0, starter = kNone, last_rank = 0;
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t point = (*points)[i], rank = rank_of(file, point);
    const bool is_near = starter != kNone && (kept == starter + 1 || last_rank < rank);
    const uint32_t whole = is_near ? composed_of(file, (*points)[starter], point) : kNone;
    if (whole != kNone) {
      (*points)[starter] = whole;
      continue;
    }
    if (rank == 0) starter = kept;
    last_rank = rank;
    (*points)[kept++] = point;
  }
  for (uint32_t i = 0; i < kept; ++i) {
    if (!add_point(composed, (*points)[i])) return false;
  }
  return true;
}

}  // namespace forerun
