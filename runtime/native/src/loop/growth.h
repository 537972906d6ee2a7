// Growing a draft tree level by level: the drafter offers candidates, the shape selects.
#ifndef FORERUN_LOOP_GROWTH_H
#define FORERUN_LOOP_GROWTH_H

#include "../status.h"
#include "tree.h"

namespace forerun {

// A possible row of a growing tree: `rank` among its siblings (0 = best), `probability` given its parent.
struct Candidate {
  int32_t parent;
  int32_t token_id;
  int32_t rank;
  int32_t order;  // in which it was offered: what sorting keeps among equals
  double probability;
};

// What is offered for one level.
struct Offers {
  static constexpr int32_t kMost = kMostRows * FORERUN_MOST_CHOICES;
  int32_t count;
  Candidate list[kMost];

  void add(int32_t parent, int32_t token_id, int32_t rank, double probability) {
    if (count == kMost) return;
    list[count] = {parent, token_id, rank, count, probability};
    ++count;
  }
};

// How a draft grows.
class Shape {
 public:
  virtual ~Shape() = default;

  // Levels below the root at most.
  virtual int32_t depth() const = 0;

  // Children wanted for each row of the level above `level` (1 = below the root).
  virtual int32_t width(int32_t level) const = 0;

  // Brings those that become rows to the front, best first, and returns how many; *expanded of the first get
  // children.
  virtual int32_t select(int32_t level, Offers* offers, const Tree& tree, int32_t* expanded) = 0;
};

// A drafter in the middle of a proposal.
class Offering {
 public:
  virtual ~Offering() = default;

  // Adds up to `width` children for each of `rows` [count], which stand on one level.
  virtual Status offer(const Tree& tree, const int32_t* rows, int32_t count, int32_t width,
                       Offers* offers) = 0;
};

struct Limits {
  int32_t rows;   // of the tree, the root included
  int32_t depth;  // below the root
};

// Grows a tree below `root`, until the shape's depth, the limits, or a level without rows.
Status grow(int32_t root, Shape* shape, const Limits& limits, Offering* offering, Offers* offers, Tree* tree);

// Which rows of a growing tree were given children, in the order in which they were staged in a session.
class Expanded {
 public:
  void start() { count_ = 0; }
  int32_t count() const { return count_; }

  // Enters rows that are to be staged now; the places of their parents among those staged.
  void add(const Tree& tree, const int32_t* rows, int32_t count, int32_t* parents);

  // The same tree with these rows before all others, as they were staged.
  void bring_first(Tree* tree) const;

 private:
  int32_t count_ = 0;
  int32_t rows_[kMostRows];
  int32_t places_[kMostRows];  // by row of the tree
};

}  // namespace forerun

#endif
