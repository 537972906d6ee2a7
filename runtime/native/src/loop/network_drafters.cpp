#include "network_drafters.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "calls.h"
#include "generator.h"
#include "shapes.h"

namespace forerun {

Status NetworkDrafter::begin(const Beginning& beginning) {
  FORERUN_TRY(beginning.generator->open_draft(name(), &network_));
  sequence_ = beginning.sequence;
  prompt_tokens_ = beginning.count;
  return prepare(beginning);
}

Status NetworkDrafter::follow(Following* following, const Observation& observation) {
  following->add(observation);
  const bool ends = observation.start + observation.count == prompt_tokens_;
  return observation.draft == nullptr && ends ? following->catch_up() : FORERUN_OK;
}

LayerList NetworkDrafter::taps() const {
  const ListedDraft& listed = network_->listed();
  return {listed.tap_count, listed.taps};
}

Status NetworkDrafter::offer_from(const float* logits, const Tree& tree, const int32_t* rows, int32_t count,
                                  int32_t width, Offers* offers) {
  const int64_t size = network_->session().program().vocabulary_size;
  for (int32_t i = 0; i < count; ++i) {
    const forerun_draft_logits own = network_->logits(logits + i * size);
    FORERUN_TRY(offer_children(*context_, own, threshold_, tree, rows[i], width, offers));
  }
  return FORERUN_OK;
}

// ---- feature ----

Status FeatureDrafter::prepare(const Beginning& beginning) {
  const forerun_program& own = network_->session().program();
  if (outputs_.as<float>() == nullptr) {
    const uint64_t rows = kMostRows;
    FORERUN_TRY(outputs_.reserve(rows, own.hidden_size * sizeof(float), "a draft's outputs"));
    FORERUN_TRY(features_.reserve(rows, own.feature_size * sizeof(float), "a draft's features"));
  }
  return following_.begin(network_, beginning, 1, own.feature_size);
}

Status FeatureDrafter::observe(const Observation& observation) {
  const LayerList wanted = taps();
  const int64_t size = network_->session().program().hidden_size;
  if (observation.taps.find(wanted.layers[0]) < 0) {
    following_.miss();
    return FORERUN_OK;
  }
  const int32_t rows = following_.wanted(observation.count);
  for (int32_t i = 0; i < rows; ++i) {
    float* const state = following_.state(i);
    std::memset(state, 0, static_cast<size_t>(size) * sizeof(float));
    for (int32_t tap = 0; tap < wanted.count; ++tap) {
      const int32_t place = observation.taps.find(wanted.layers[tap]);
      std::memcpy(state + (tap + 1) * size, observation.taps.row(place, observation.count - rows + i),
                  static_cast<size_t>(size) * sizeof(float));
    }
  }
  return follow(&following_, observation);
}

Status FeatureDrafter::propose_in(Shape* shape, const Context& context, Draft* draft) {
  draft->tree.start(context.root());
  if (!context.has_room() || !following_.awaits_root()) return FORERUN_OK;
  context_ = &context;
  staged_[0] = -1;  // the root is committed in the network's session
  staged_count_ = 0;
  FORERUN_TRY(grow(context.root(), shape, context.limits, this, context.offers, &draft->tree));
  return commit_path(network_->session(), sequence_, 0, nullptr);
}

Status FeatureDrafter::offer(const Tree& tree, const int32_t* rows, int32_t count, int32_t width,
                             Offers* offers) {
  const float* logits = nullptr;
  if (rows[0] == 0) {
    FORERUN_TRY(run_root(tree.token_ids[0], &logits));
  } else {
    FORERUN_TRY(run_level(tree, rows, count, &logits));
  }
  return offer_from(logits, tree, rows, count, width, offers);
}

Status FeatureDrafter::run_root(int32_t root, const float** logits) {
  Session& session = network_->session();
  const int64_t size = session.program().hidden_size;
  int32_t count = 0;
  FORERUN_TRY(following_.stage(root, &count));
  const Rows listed(sequence_, 0, count);
  const int32_t last_row = count - 1, last_layer = session.program().layers - 1;
  const forerun_request request = {listed.rows, count,       nullptr, FORERUN_ALL, &last_row,
                                   1,           &last_layer, 1,       0,           nullptr};
  forerun_result result;
  FORERUN_TRY(forward(session, request, &result));
  std::memcpy(outputs_.as<float>(), result.taps + last_row * size, static_cast<size_t>(size) * sizeof(float));
  *logits = result.logits;
  return following_.keep(count);
}

Status FeatureDrafter::run_level(const Tree& tree, const int32_t* rows, int32_t count, const float** logits) {
  Session& session = network_->session();
  const int64_t size = session.program().hidden_size, width = session.program().feature_size;
  const size_t bytes = static_cast<size_t>(size) * sizeof(float);
  int32_t draft_ids[kMostRows], parents[kMostRows];
  const int32_t first = staged_count_;
  for (int32_t i = 0; i < count; ++i) {
    const int32_t parent = tree.parents[rows[i]];
    std::memcpy(features_.as<float>() + i * width, outputs_.as<float>() + parent * size, bytes);
    draft_ids[i] = network_->draft_id(tree.token_ids[rows[i]]);
    parents[i] = staged_[parent];
    staged_[rows[i]] = staged_count_++;
  }
  FORERUN_TRY(stage_rows(session, session.sequences()[sequence_],
                         {count, draft_ids, features_.as<float>(), nullptr, parents, 0}));
  const Rows listed(sequence_, first, count);
  const int32_t last_layer = session.program().layers - 1;
  const forerun_request request = {listed.rows, count,       nullptr, FORERUN_ALL, nullptr,
                                   FORERUN_ALL, &last_layer, 1,       0,           nullptr};
  forerun_result result;
  FORERUN_TRY(forward(session, request, &result));
  for (int32_t i = 0; i < count; ++i) {
    std::memcpy(outputs_.as<float>() + rows[i] * size, result.taps + i * size, bytes);
  }
  *logits = result.logits;
  return FORERUN_OK;
}

// ---- exit ----

Status ExitDrafter::prepare(const Beginning& beginning) {
  step_count_ = 2 * (network_->listed().taps[0] + 1);
  if (steps_.as<int32_t>() == nullptr) {
    FORERUN_TRY(steps_.reserve(step_count_, sizeof(int32_t), "the steps of a drafter"));
  }
  for (int32_t step = 0; step < step_count_; ++step) steps_.as<int32_t>()[step] = step;
  return following_.begin(network_, beginning, 0, network_->session().program().hidden_size);
}

Status ExitDrafter::observe(const Observation& observation) {
  const int32_t place = observation.taps.find(network_->listed().taps[0]);
  if (place < 0) {
    following_.miss();
    return FORERUN_OK;
  }
  const size_t bytes = static_cast<size_t>(observation.taps.width) * sizeof(float);
  const int32_t rows = following_.wanted(observation.count);
  for (int32_t i = 0; i < rows; ++i) {
    std::memcpy(following_.state(i), observation.taps.row(place, observation.count - rows + i), bytes);
  }
  return follow(&following_, observation);
}

Status ExitDrafter::propose_in(Shape* shape, const Context& context, Draft* draft) {
  draft->tree.start(context.root());
  if (!context.has_room()) return FORERUN_OK;
  FORERUN_TRY(following_.catch_up());
  context_ = &context;
  expanded_.start();
  FORERUN_TRY(grow(context.root(), shape, context.limits, this, context.offers, &draft->tree));
  FORERUN_TRY(commit_path(network_->session(), sequence_, 0, nullptr));
  if (step_count_ > context.reusable_sublayers) {
    return commit_path(*context.session, context.sequence, 0, nullptr);
  }
  // The last level was proposed but not run: it is not staged yet.
  expanded_.bring_first(&draft->tree);
  draft->staged = expanded_.count();
  draft->done = step_count_;
  return FORERUN_OK;
}

Status ExitDrafter::offer(const Tree& tree, const int32_t* rows, int32_t count, int32_t width,
                          Offers* offers) {
  Session &session = *context_->session, &own = network_->session();
  const int32_t tap = network_->listed().taps[0], first = expanded_.count();
  int32_t parents[kMostRows];
  expanded_.add(tree, rows, count, parents);
  FORERUN_TRY(stage_tree_rows(session, context_->sequence, tree, rows, count, parents));
  const Rows listed(context_->sequence, first, count);
  const forerun_request model_request = {
      listed.rows, count, steps_.as<int32_t>(), step_count_, nullptr, 0, &tap, 1, 0, nullptr};
  forerun_result result;
  FORERUN_TRY(forward(session, model_request, &result));
  FORERUN_TRY(
      stage_rows(own, own.sequences()[sequence_], {count, nullptr, nullptr, result.taps, parents, 0}));
  const Rows own_listed(sequence_, first, count);
  const forerun_request request = {own_listed.rows, count,   nullptr, FORERUN_ALL, nullptr,
                                   FORERUN_ALL,     nullptr, 0,       0,           nullptr};
  FORERUN_TRY(forward(own, request, &result));
  return offer_from(result.logits, tree, rows, count, width, offers);
}

// ---- heads ----

Status HeadsDrafter::prepare(const Beginning&) {
  Session& own = network_->session();
  if (state_.as<float>() == nullptr) {
    FORERUN_TRY(state_.reserve(1, own.program().hidden_size * sizeof(float), "a draft's state"));
  }
  has_state_ = false;
  return rewind_sequence(own, own.sequences()[sequence_], 0);
}

// The state of the last row is all that they read; a row that left the model early has none.
Status HeadsDrafter::observe(const Observation& observation) {
  const int32_t place = observation.taps.find(network_->listed().taps[0]);
  has_state_ = place >= 0;
  if (!has_state_) return FORERUN_OK;
  const float* const state = observation.taps.row(place, observation.count - 1);
  const int64_t size = observation.taps.width;
  has_state_ = std::all_of(state, state + size, [](float value) { return std::isfinite(value); });
  std::copy_n(state, size, state_.as<float>());
  return FORERUN_OK;
}

Status HeadsDrafter::propose_in(Shape* shape, const Context& context, Draft* draft) {
  draft->tree.start(context.root());
  if (!has_state_ || !context.has_room()) return FORERUN_OK;
  context_ = &context;
  staged_count_ = 0;
  const int32_t heads = network_->listed().heads;
  Chain chain(heads);
  const Limits limits = {context.limits.rows, std::min(context.limits.depth, heads)};
  FORERUN_TRY(
      grow(context.root(), shape != nullptr ? shape : &chain, limits, this, context.offers, &draft->tree));
  return commit_path(network_->session(), sequence_, 0, nullptr);
}

Status HeadsDrafter::offer(const Tree& tree, const int32_t* rows, int32_t count, int32_t width,
                           Offers* offers) {
  Session& own = network_->session();
  const int32_t depth = own.program().layers / network_->listed().heads, head = tree.depths[rows[0]];
  int32_t steps[kMostRows];
  const int32_t parent = -1;
  for (int32_t i = 0; i < depth; ++i) steps[i] = 2 * (head * depth + i) + 1;
  FORERUN_TRY(
      stage_rows(own, own.sequences()[sequence_], {1, nullptr, nullptr, state_.as<float>(), &parent, 0}));
  const forerun_row row = {sequence_, staged_count_++};
  const forerun_request request = {&row, 1, steps, depth, nullptr, FORERUN_ALL, nullptr, 0, 0, nullptr};
  forerun_result result;
  FORERUN_TRY(forward(own, request, &result));
  for (int32_t i = 0; i < count; ++i)
    FORERUN_TRY(offer_from(result.logits, tree, rows + i, 1, width, offers));
  return FORERUN_OK;
}

}  // namespace forerun
