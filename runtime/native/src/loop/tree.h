// The rows of one verify call: a root that was drawn already, and the drafted tokens below it.
#ifndef FORERUN_LOOP_TREE_H
#define FORERUN_LOOP_TREE_H

#include <cstdint>

namespace forerun {

// Rows of one verify call at most, the root included.
constexpr int32_t kMostRows = 64;

// Row 0 is the root; every other row names an earlier one as its parent. Siblings hold different tokens.
struct Tree {
  int32_t count = 0;
  int32_t token_ids[kMostRows];
  int32_t parents[kMostRows];  // -1 for the root
  int32_t depths[kMostRows];
  double reach[kMostRows];  // the draft's probability of the path from the root

  void start(int32_t root);

  // Appends a row and returns it; there must be room.
  int32_t add(int32_t parent, int32_t token_id, double probability = 1);

  // The child of `row` that holds the token, -1 when there is none.
  int32_t child(int32_t row, int32_t token_id) const;

  // The child that holds the token, appended if there was none; -1 when the tree is full.
  int32_t child_or_add(int32_t row, int32_t token_id);

  // Keeps the first `row_limit` rows no deeper than `depth_limit`: earlier rows are the better guesses.
  void limit(int32_t row_limit, int32_t depth_limit);
};

}  // namespace forerun

#endif
