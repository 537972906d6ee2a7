// Whether a draft pays: how often drafts have been right, what a row is worth. runtime/planner.py is the
// definition. Times are in units of a plain call, T(1). With tokens coming at `rate` per such unit, a row
// pays if the chance that it is accepted exceeds `rate` times what it adds to the call.
#ifndef FORERUN_LOOP_PLANNER_H
#define FORERUN_LOOP_PLANNER_H

#include "costs.h"
#include "growth.h"

namespace forerun {

constexpr int32_t kMostLevels = 8;

// How often something came true, recent times counting most; `assumed` before anything was seen.
struct Frequency {
  double assumed = 0;
  double hits = 0;
  double tries = 0;

  double value() const;
  void note(bool came_true);
};

// A mean of numbers, recent ones counting most.
struct Average {
  double total = 0;
  double weight = 0;

  double value(double assumed) const;
  void note(double number);
};

// The frequencies that the outcome of a row counts for.
struct Counted {
  static constexpr int32_t kMost = 3;
  int32_t count = 0;
  Frequency* frequencies[kMost];

  void add(Frequency* frequency) {
    if (count < kMost) frequencies[count++] = frequency;
  }
};

// What is known of one draft network: what its own probabilities are worth, and what it costs in units of a
// plain call: the root's level, and each further one.
class NetworkPlan {
 public:
  NetworkPlan();

  double level_cost = 0.1;

  // Where drafts like this one are counted; at first their probability is taken at its word.
  Frequency* cell(double probability, int32_t rank);

  // How often the first choice at this depth (1 = below the root) is right.
  Frequency* at_depth(int32_t depth) { return &first_choices_[depth - 1]; }

  // Another text, where it may be worth more or less: to be tried at once.
  void begin();

  // Tokens that a draft should bring beyond what its time is worth; 0 or less: do not draft. `reach` is the
  // chance that it matters at all: where it is 1, what drafts have brought counts, and else, or before there
  // were any, what a chain of the best length should bring.
  double expected_gain(const LiveCosts& costs, double rate, double reach, int32_t rows_before);

  // A draft of so many levels, for which nothing was copied, made a call of `rows` rows of which `accepted`
  // were right.
  void note_gain(const LiveCosts& costs, double rate, int32_t levels, int32_t rows, int32_t accepted);

  // Whether to draft: because it should pay, or to see for some calls whether it does by now, ever more
  // rarely.
  bool is_due(double gain);

  // Whether it may draft soon; a network that does not pay is not followed until shortly before its trial.
  bool wants_states() const;

  // A draft of so many levels took this long.
  void note_time(double time, int32_t levels);

 private:
  Frequency cells_[10][2];  // by the probability in tenths, and whether it was the first choice
  Frequency first_choices_[kMostLevels + 1];
  double first_cost_ = 0.1;
  Average gains_;
  int32_t waited_;
  int32_t patience_;
  int32_t trial_ = 0;  // calls of it that are left
  bool paused_ = false;
};

// How fast text comes: tokens for the time of a plain call; recent steps count most.
class Pace {
 public:
  double rate() const;
  void note(int32_t tokens, double time);

 private:
  double tokens_ = 0;
  double time_ = 0;
};

// What is known of a model's drafts on this machine; shared by all answers of a generator.
class Planner {
 public:
  static constexpr int32_t kNetworks = 3;

  Planner();

  LiveCosts costs;
  NetworkPlan networks[kNetworks];

  // How often the token at this depth of a copy was right, of a match of so many tokens.
  Frequency* copied(int32_t size, int32_t depth);

 private:
  static constexpr int32_t kSizes = 6, kDepths = 4;
  Frequency copied_[kSizes][kDepths];
};

// A tree that grows as long as it pays; one for each draft.
class PlannedShape : public Shape {
 public:
  // `reach` is the chance that the draft matters at all, `rows_before` the rows that the call has already,
  // the root included.
  void start(int32_t root, const LiveCosts* costs, NetworkPlan* plan, double rate, double reach,
             int32_t rows_before);

  int32_t depth() const override { return kMostLevels; }
  int32_t width(int32_t) const override { return 3; }  // candidates looked at below a row
  int32_t select(int32_t level, Offers* offers, const Tree& tree, int32_t* expanded) override;

  int32_t levels() const { return levels_; }
  // All that was chosen, in that order, and what the outcome of each row counts for.
  const Tree& chosen() const { return chosen_; }
  const Counted& counted(int32_t row) const { return counted_[row]; }

 private:
  int32_t expanded_of(int32_t level, const double* chances, int32_t count);

  const LiveCosts* costs_ = nullptr;
  NetworkPlan* plan_ = nullptr;
  double rate_ = 1;
  int32_t before_ = 1;
  int32_t levels_ = 0;
  Tree chosen_;
  double reach_[kMostRows];
  Counted counted_[kMostRows];
};

}  // namespace forerun

#endif
