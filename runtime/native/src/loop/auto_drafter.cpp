#include "auto_drafter.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "../clock.h"
#include "generator.h"
#include "shapes.h"

namespace forerun {
namespace {

// Kinds of networks that can draft, best first where a bundle has several.
constexpr const char* kKinds[Planner::kNetworks] = {"feature", "exit", "heads"};

std::unique_ptr<NetworkDrafter> make_network(int32_t kind) {
  NetworkDrafter* made = nullptr;
  if (kind == 0) made = new (std::nothrow) FeatureDrafter(0, nullptr);
  if (kind == 1) made = new (std::nothrow) ExitDrafter(0, nullptr);
  if (kind == 2) made = new (std::nothrow) HeadsDrafter(0, nullptr);
  return std::unique_ptr<NetworkDrafter>(made);
}

}  // namespace

Auto::Auto(int32_t network) : wanted_(network), lookup_(LookupOptions{5, 2, kCopied, 1}, nullptr) {}

int32_t Auto::kind_of(const char* name) {
  for (int32_t kind = 0; kind < Planner::kNetworks; ++kind) {
    if (std::strcmp(kKinds[kind], name) == 0) return kind;
  }
  return -3;
}

Status Auto::begin(const Beginning& beginning) {
  generator_ = beginning.generator;
  FORERUN_TRY(lookup_.begin(beginning));
  FORERUN_TRY(choose_network(beginning));
  pace_ = Pace();
  step_.active = false;
  return FORERUN_OK;
}

Status Auto::choose_network(const Beginning& beginning) {
  chosen_ = wanted_;
  for (int32_t kind = 0; kind < Planner::kNetworks && chosen_ == kFirstFound; ++kind) {
    if (generator_->find_draft(kKinds[kind]) != nullptr) chosen_ = kind;
  }
  if (chosen_ < 0) return FORERUN_OK;
  if (!networks_[chosen_]) networks_[chosen_] = make_network(chosen_);
  if (!networks_[chosen_]) return no_memory("a draft network");
  generator_->planner.networks[chosen_].begin();
  return networks_[chosen_]->begin(beginning);
}

LayerList Auto::taps() const {
  if (chosen_ < 0 || !generator_->planner.networks[chosen_].wants_states()) return {};
  return networks_[chosen_]->taps();
}

Status Auto::propose(const Context& context, Draft* draft) {
  step_.active = false;
  draft->tree.start(context.root());
  if (!context.has_room()) return FORERUN_OK;
  FORERUN_TRY(generator_->know_costs(context.sequence, context.root()));
  const LiveCosts& costs = generator_->planner.costs;
  step_.rate = pace_.rate();
  step_.doubt = 1;
  step_.time = 0;
  step_.levels = 0;
  step_.drafted.start(context.root());
  copy(context, draft);
  FORERUN_TRY(ask_network(context, draft));
  step_.time += costs.relative(draft->tree.count);
  step_.proposed_ns = now_ns();
  step_.active = true;
  return FORERUN_OK;
}

// Copies from the text as many tokens as pay.
void Auto::copy(const Context& context, Draft* draft) {
  Planner& planner = generator_->planner;
  int32_t chain[kCopied], count = 0;
  const int32_t most = std::min({context.limits.depth, context.limits.rows - 1, kCopied});
  const int32_t size = lookup_.match(context.token_ids, context.count, most, chain, &count);
  int32_t kept = 0;
  double best = 0, gain = 0, chance = 1;
  for (int32_t depth = 1; depth <= count; ++depth) {
    chance *= planner.copied(size, depth)->value();
    gain += chance - step_.rate * planner.costs.marginal(depth);
    if (gain > best) {
      kept = depth;
      best = gain;
    }
  }
  for (int32_t i = 0; i < kept; ++i) {
    draft->tree.add(i, chain[i]);
    const int32_t row = step_.drafted.add(i, chain[i]);
    step_.counted[row].count = 0;
    step_.counted[row].add(planner.copied(size, i + 1));
  }
  if (kept > 0) step_.doubt = 1 - planner.copied(size, 1)->value();
  draft->origin = kept > 0 ? FORERUN_ORIGIN_LOOKUP : FORERUN_ORIGIN_NONE;
}

// Adds what the network drafts, where that pays.
Status Auto::ask_network(const Context& context, Draft* draft) {
  const bool copied = draft->tree.count > 1;
  if (chosen_ < 0) return FORERUN_OK;
  NetworkDrafter* const network = networks_[chosen_].get();
  // Rows of a copy could not come before those that a network stages in the model.
  if (copied && network->stages_in_model()) return FORERUN_OK;
  Planner& planner = generator_->planner;
  NetworkPlan& plan = planner.networks[chosen_];
  const int32_t before = draft->tree.count;
  if (!plan.is_due(plan.expected_gain(planner.costs, step_.rate, step_.doubt, before))) return FORERUN_OK;
  shape_.start(context.root(), &planner.costs, &plan, step_.rate, step_.doubt, before);
  network_draft_.staged = network_draft_.done = 0;
  const uint64_t begin_ns = now_ns();
  FORERUN_TRY(network->propose_in(&shape_, context, &network_draft_));
  step_.time = static_cast<double>(now_ns() - begin_ns) * 1e-6 / planner.costs.plain_ms();
  plan.note_time(step_.time, shape_.levels());
  step_.levels = copied ? 0 : shape_.levels();
  Tree* const tree = &draft->tree;
  count_planned(context, network_draft_.staged > 0 ? nullptr : tree);
  if (network_draft_.staged > 0) *draft = network_draft_;
  if (tree->count == 1 && draft->staged == 0) return FORERUN_OK;
  if (network_draft_.tree.count > 1 || network_draft_.staged > 0) {
    draft->origin = copied ? FORERUN_ORIGIN_LOOKUP_AND_NETWORK : FORERUN_ORIGIN_NETWORK;
  }
  return FORERUN_OK;
}

// Enters what the shape chose among everything drafted and, unless nullptr, in the tree.
void Auto::count_planned(const Context& context, Tree* tree) {
  const Tree& chosen = shape_.chosen();
  int32_t drafted[kMostRows] = {0}, merged[kMostRows] = {0};
  for (int32_t row = 1; row < chosen.count; ++row) {
    const int32_t above = drafted[chosen.parents[row]];
    const int32_t known = step_.drafted.count;
    drafted[row] = above < 0 ? -1 : step_.drafted.child_or_add(above, chosen.token_ids[row]);
    if (drafted[row] >= known) step_.counted[drafted[row]].count = 0;
    for (int32_t i = 0; drafted[row] >= 0 && i < shape_.counted(row).count; ++i) {
      step_.counted[drafted[row]].add(shape_.counted(row).frequencies[i]);
    }
    if (tree == nullptr) continue;
    const int32_t parent = merged[chosen.parents[row]];
    merged[row] = parent < 0 ? -1 : tree->child_or_add(parent, chosen.token_ids[row]);
  }
  if (tree != nullptr) tree->limit(context.limits.rows, context.limits.depth);
}

// Counts which rows were right, and how fast the text came.
Status Auto::observe(const Observation& observation) {
  if (chosen_ >= 0) FORERUN_TRY(networks_[chosen_]->observe(observation));
  if (observation.draft == nullptr || !step_.active) return FORERUN_OK;
  const Tree& tree = observation.draft->tree;
  const double elapsed_ms = static_cast<double>(now_ns() - step_.proposed_ns) * 1e-6;
  generator_->planner.costs.note(tree.count, elapsed_ms);
  pace_.note(observation.count, step_.time);
  if (step_.levels > 0) {
    generator_->planner.networks[chosen_].note_gain(generator_->planner.costs, step_.rate, step_.levels,
                                                    tree.count, observation.count - 1);
  }
  bool accepted[kMostRows] = {false};
  for (int32_t i = 0; i < observation.count; ++i) accepted[observation.path[i]] = true;
  int32_t drafted[kMostRows] = {0};
  for (int32_t row = 1; row < tree.count; ++row) {
    const int32_t above = drafted[tree.parents[row]];
    drafted[row] = above < 0 ? -1 : step_.drafted.child(above, tree.token_ids[row]);
    if (drafted[row] < 0 || !accepted[tree.parents[row]]) continue;
    const Counted& counted = step_.counted[drafted[row]];
    for (int32_t i = 0; i < counted.count; ++i) counted.frequencies[i]->note(accepted[row]);
  }
  return FORERUN_OK;
}

}  // namespace forerun
