#include "growth.h"

#include <algorithm>

namespace forerun {

Status grow(int32_t root, Shape* shape, const Limits& limits, Offering* offering, Offers* offers,
            Tree* tree) {
  tree->start(root);
  int32_t rows[kMostRows] = {0};
  int32_t count = 1;
  const int32_t levels = std::min(shape->depth(), limits.depth);
  for (int32_t level = 1; level <= levels && count > 0; ++level) {
    const int32_t room = limits.rows - tree->count;
    if (room <= 0) break;
    offers->count = 0;
    const int32_t width = std::min(shape->width(level), FORERUN_MOST_CHOICES);
    FORERUN_TRY(offering->offer(*tree, rows, count, width, offers));
    int32_t expanded = 0;
    const int32_t chosen = std::min(shape->select(level, offers, *tree, &expanded), room);
    count = 0;
    for (int32_t i = 0; i < chosen; ++i) {
      const Candidate& one = offers->list[i];
      const int32_t row = tree->add(one.parent, one.token_id, one.probability);
      if (i < expanded) rows[count++] = row;
    }
  }
  return FORERUN_OK;
}

void Expanded::add(const Tree& tree, const int32_t* rows, int32_t count, int32_t* parents) {
  for (int32_t i = 0; i < count; ++i) {
    const int32_t parent = tree.parents[rows[i]];
    parents[i] = parent < 0 ? -1 : places_[parent];
  }
  for (int32_t i = 0; i < count; ++i) {
    places_[rows[i]] = count_;
    rows_[count_++] = rows[i];
  }
}

void Expanded::bring_first(Tree* tree) const {
  bool first[kMostRows] = {false};
  int32_t order[kMostRows], place[kMostRows], size = 0;
  for (int32_t i = 0; i < count_; ++i) {
    first[rows_[i]] = true;
    order[size++] = rows_[i];
  }
  for (int32_t row = 0; row < tree->count; ++row) {
    if (!first[row]) order[size++] = row;
  }
  for (int32_t i = 0; i < size; ++i) place[order[i]] = i;
  const Tree grown = *tree;
  for (int32_t i = 0; i < size; ++i) {
    const int32_t parent = grown.parents[order[i]];
    tree->token_ids[i] = grown.token_ids[order[i]];
    tree->parents[i] = parent < 0 ? -1 : place[parent];
    tree->depths[i] = grown.depths[order[i]];
    tree->reach[i] = grown.reach[order[i]];
  }
}

}  // namespace forerun
