#include "planner.h"

#include <algorithm>

namespace forerun {
namespace {

constexpr double kLearning = 0.1;  // what a new time counts for
constexpr int32_t kLeastPatience = 16,
                  kMostPatience = 256;  // calls between trials of a network that does not pay
constexpr int32_t kTrial = 4;           // calls that a trial lasts
// Calls for which a network's rows are kept after it drafted, and before it is tried.
constexpr int32_t kLingering = 4, kNotice = 8;
// How often the first token of a copy is right, before anything was seen, by the length of the match.
constexpr double kCopyChances[] = {0.0, 0.2, 0.35, 0.5, 0.65, 0.8};
constexpr double kFollowingChance = 0.75;  // and each further one

constexpr double kForgetting = 0.98;  // what an observation is worth at the next one of its kind
constexpr double kAssumed = 4.0;      // observations that the assumption before the first one counts for

}  // namespace

double Frequency::value() const {
  return (hits + kAssumed * assumed) / (tries + kAssumed);
}

void Frequency::note(bool came_true) {
  hits = kForgetting * hits + (came_true ? 1.0 : 0.0);
  tries = kForgetting * tries + 1.0;
}

double Average::value(double assumed) const {
  return (total + kAssumed * assumed) / (weight + kAssumed);
}

void Average::note(double number) {
  total = kForgetting * total + number;
  weight = kForgetting * weight + 1.0;
}

NetworkPlan::NetworkPlan() : waited_(kLeastPatience), patience_(kLeastPatience) {
  for (int32_t tenth = 0; tenth < 10; ++tenth) {
    for (Frequency& cell : cells_[tenth]) cell.assumed = (tenth + 0.5) / 10;
  }
  for (Frequency& choice : first_choices_) choice.assumed = 0.5;
}

Frequency* NetworkPlan::cell(double probability, int32_t rank) {
  const int32_t tenth = std::min(static_cast<int32_t>(10 * probability), 9);
  return &cells_[tenth][rank == 0];
}

void NetworkPlan::begin() {
  waited_ = patience_ = kLeastPatience;
  trial_ = 0;
}

double NetworkPlan::expected_gain(const LiveCosts& costs, double rate, double reach, int32_t rows_before) {
  const bool alone = reach == 1;
  double gain = -rate * first_cost_;
  double best = gain;
  for (int32_t depth = 1; depth <= kMostLevels; ++depth) {
    reach *= at_depth(depth)->value();
    gain += reach - rate * costs.marginal(rows_before + depth - 1);
    best = std::max(best, gain);
    gain -= rate * level_cost;
  }
  return alone ? gains_.value(best) : best;
}

void NetworkPlan::note_gain(const LiveCosts& costs, double rate, int32_t levels, int32_t rows,
                            int32_t accepted) {
  const double time = first_cost_ + (levels - 1) * level_cost + costs.relative(rows) - 1;
  gains_.note(accepted - rate * time);
}

bool NetworkPlan::is_due(double gain) {
  paused_ = waited_ > 0;
  if (gain > 0) {
    patience_ = kLeastPatience;
    trial_ = 0;
  } else if (trial_ > 0) {
    --trial_;
  } else if (waited_ < patience_) {
    ++waited_;
    return false;
  } else {
    patience_ = std::min(2 * patience_, kMostPatience);
    trial_ = kTrial - 1;
  }
  waited_ = 0;
  return true;
}

bool NetworkPlan::wants_states() const {
  return waited_ < kLingering || waited_ >= patience_ - kNotice;
}

// The first draft after a pause has rows to catch up with and says little.
void NetworkPlan::note_time(double time, int32_t levels) {
  if (paused_) return;
  if (levels <= 1) {
    first_cost_ += kLearning * (time - first_cost_);
  } else {
    level_cost += kLearning * (std::max(time - first_cost_, 0.0) / (levels - 1) - level_cost);
  }
}

double Pace::rate() const {
  return time_ > 0 ? std::max(tokens_ / time_, 1.0) : 1.0;
}

void Pace::note(int32_t tokens, double time) {
  tokens_ = kForgetting * tokens_ + tokens;
  time_ = kForgetting * time_ + time;
}

Planner::Planner() {
  for (int32_t size = 0; size < kSizes; ++size) {
    for (int32_t depth = 0; depth < kDepths; ++depth) {
      copied_[size][depth].assumed = depth == 0 ? kCopyChances[size] : kFollowingChance;
    }
  }
}

Frequency* Planner::copied(int32_t size, int32_t depth) {
  return &copied_[std::min(size, kSizes - 1)][std::min(depth, kDepths) - 1];
}

void PlannedShape::start(int32_t root, const LiveCosts* costs, NetworkPlan* plan, double rate, double reach,
                         int32_t rows_before) {
  chosen_.start(root);
  costs_ = costs;
  plan_ = plan;
  rate_ = rate;
  before_ = rows_before;
  levels_ = 0;
  reach_[0] = reach;
}

// The rows that pay, likeliest first.
int32_t PlannedShape::select(int32_t level, Offers* offers, const Tree&, int32_t* expanded) {
  ++levels_;
  const auto chance = [this](const Candidate& one) {
    return reach_[one.parent] * plan_->cell(one.probability, one.rank)->value();
  };
  std::sort(offers->list, offers->list + offers->count, [&](const Candidate& left, const Candidate& right) {
    const double first = chance(left), second = chance(right);
    return first != second ? first > second : left.order < right.order;
  });
  double chances[kMostRows];
  int32_t chosen = 0;
  for (; chosen < offers->count && chosen_.count < kMostRows; ++chosen) {
    const Candidate& one = offers->list[chosen];
    chances[chosen] = chance(one);
    if (chances[chosen] <= rate_ * costs_->marginal(before_ + chosen_.count - 1)) break;
    const int32_t row = chosen_.add(one.parent, one.token_id);
    reach_[row] = chances[chosen];
    Counted& counted = counted_[row];
    counted.count = 0;
    counted.add(plan_->cell(one.probability, one.rank));
    if (one.rank == 0) counted.add(plan_->at_depth(level));
  }
  *expanded = expanded_of(level, chances, chosen);
  return chosen;
}

// How many of the new rows should get children: as many as bring the most, or none.
int32_t PlannedShape::expanded_of(int32_t level, const double* chances, int32_t count) {
  const double right = plan_->at_depth(level + 1)->value();
  double best = 0, gain = -rate_ * plan_->level_cost;
  int32_t best_count = 0;
  for (int32_t i = 0; i < count; ++i) {
    gain += chances[i] * right;
    gain -= rate_ * costs_->marginal(before_ + chosen_.count - 1 + i);
    if (gain > best) {
      best = gain;
      best_count = i + 1;
    }
  }
  return best_count;
}

}  // namespace forerun
