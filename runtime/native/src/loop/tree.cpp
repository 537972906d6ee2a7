#include "tree.h"

#include <algorithm>

namespace forerun {

void Tree::start(int32_t root) {
  count = 1;
  token_ids[0] = root;
  parents[0] = -1;
  depths[0] = 0;
  reach[0] = 1;
}

int32_t Tree::add(int32_t parent, int32_t token_id, double probability) {
  const int32_t row = count++;
  token_ids[row] = token_id;
  parents[row] = parent;
  depths[row] = depths[parent] + 1;
  reach[row] = reach[parent] * probability;
  return row;
}

int32_t Tree::child(int32_t row, int32_t token_id) const {
  for (int32_t candidate = row + 1; candidate < count; ++candidate) {
    if (parents[candidate] == row && token_ids[candidate] == token_id) return candidate;
  }
  return -1;
}

int32_t Tree::child_or_add(int32_t row, int32_t token_id) {
  const int32_t found = child(row, token_id);
  if (found >= 0) return found;
  return count < kMostRows ? add(row, token_id) : -1;
}

void Tree::limit(int32_t row_limit, int32_t depth_limit) {
  int32_t new_row[kMostRows];
  int32_t kept = 0;
  for (int32_t row = 0; row < count; ++row) {
    if (depths[row] > depth_limit || (kept > 0 && kept >= row_limit)) continue;
    token_ids[kept] = token_ids[row];
    parents[kept] = parents[row] < 0 ? -1 : new_row[parents[row]];
    depths[kept] = depths[row];
    reach[kept] = reach[row];
    new_row[row] = kept++;
  }
  count = kept;
}

}  // namespace forerun
