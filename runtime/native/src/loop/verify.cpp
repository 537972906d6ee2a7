#include "verify.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "calls.h"

namespace forerun {
namespace {

// The rows that left but lie between two that go on, after those: the lower one reads their keys in the
// layers to come, and they read the upper one's, so they have to come along in the same call. Rows that left
// above all others are pending ancestors, which the core carries by itself.
int32_t add_gaps(const Tree& tree, const int32_t* order, int32_t count, int32_t* listed) {
  bool staying[kMostRows] = {false}, between[kMostRows] = {false};
  for (int32_t i = 0; i < count; ++i) staying[order[i]] = true;
  for (int32_t i = 0; i < count; ++i) {
    int32_t parent = tree.parents[order[i]];
    while (parent >= 0 && !staying[parent]) parent = tree.parents[parent];
    if (parent < 0) continue;
    for (int32_t row = tree.parents[order[i]]; row != parent; row = tree.parents[row]) between[row] = true;
  }
  std::copy_n(order, count, listed);
  for (int32_t row = 0; row < tree.count; ++row) {
    if (between[row]) listed[count++] = row;
  }
  return count;
}

}  // namespace

Status Verifier::begin(const Session& session, const ExitPolicy* policy) {
  policy_ = policy;
  if (policy->points().count == 0 || steps_.as<int32_t>() != nullptr) return FORERUN_OK;
  const forerun_program& program = session.program();
  const uint64_t row_bytes = program.hidden_size * sizeof(float), layers = program.layers;
  FORERUN_TRY(left_logits_.reserve(kMostRows, program.vocabulary_size * sizeof(float), "logits"));
  FORERUN_TRY(kept_taps_.reserve(layers * kMostRows, row_bytes, "hidden states"));
  FORERUN_TRY(steps_.reserve(2 * layers, sizeof(int32_t), "the steps of a call"));
  for (int32_t step = 0; step < session.full_depth(); ++step) steps_.as<int32_t>()[step] = step;
  return FORERUN_OK;
}

Status Verifier::run(Session& session, int32_t sequence, const Draft& draft, const LayerList& taps,
                     const forerun_sampling* draws) {
  const Tree& tree = draft.tree;
  if (draft.staged < tree.count) {
    const int32_t* const token_ids = tree.token_ids + draft.staged;
    FORERUN_TRY(
        stage_rows(session, session.sequences()[sequence],
                   {tree.count - draft.staged, token_ids, nullptr, nullptr, tree.parents + draft.staged, 0}));
  }
  Order order;
  for (int32_t row = draft.staged; row < tree.count; ++row) order.rows[order.count++] = row;
  for (int32_t row = 0; row < draft.staged; ++row) order.rows[order.count++] = row;
  std::fill_n(exit_layers_, tree.count, -1);
  taps_ = {taps.count, taps.layers, tree.count, session.program().hidden_size, nullptr, observed_};
  if (policy_->points().count == 0) return run_all(session, sequence, order, taps, draws);
  return run_with_exits(session, sequence, tree, order, taps);
}

// All rows through all layers in one call.
Status Verifier::run_all(Session& session, int32_t sequence, const Order& order, const LayerList& taps,
                         const forerun_sampling* draws) {
  forerun_row rows[kMostRows];
  forerun_sampling sampling[kMostRows];
  for (int32_t i = 0; i < order.count; ++i) {
    rows[i] = {sequence, order.rows[i]};
    places_[order.rows[i]] = i;
    if (draws != nullptr) sampling[i] = *draws;
  }
  draws_ = draws != nullptr;
  const forerun_request request = {
      rows,        order.count, nullptr,    FORERUN_ALL,    nullptr,
      FORERUN_ALL, taps.layers, taps.count, draws_ ? 1 : 0, draws_ ? sampling : nullptr};
  forerun_result result;
  FORERUN_TRY(forward(session, request, &result));
  const int64_t size = session.program().vocabulary_size;
  for (int32_t i = 0; i < order.count && !draws_; ++i) logits_[order.rows[i]] = result.logits + i * size;
  taps_.data = result.taps;
  return FORERUN_OK;
}

Status Verifier::run_with_exits(Session& session, int32_t sequence, const Tree& tree, Order order,
                                const LayerList& taps) {
  draws_ = false;
  float* const kept = kept_taps_.as<float>();
  std::fill_n(kept, int64_t{taps.count} * tree.count * taps_.width, std::numeric_limits<float>::quiet_NaN());
  taps_.data = kept;
  for (int32_t row = 0; row < tree.count; ++row) places_[row] = row;
  const LayerList points = policy_->points();
  int32_t first = 0;
  for (int32_t i = 0; i <= points.count && order.count > 0; ++i) {
    const bool last = i == points.count;
    const int32_t layer = last ? session.program().layers - 1 : points.layers[i];
    // Taps ascend, so those that this stretch passes are neighbours.
    LayerList wanted = {0, taps.layers + first};
    while (first + wanted.count < taps.count && wanted.layers[wanted.count] <= layer) ++wanted.count;
    forerun_result result;
    FORERUN_TRY(
        run_to(session, sequence, tree, order, last ? FORERUN_ALL : 2 * (layer + 1), wanted, &result));
    first += wanted.count;
    if (!last) {
      let_rows_leave(session, result.logits, layer, &order);
      continue;
    }
    const int64_t size = session.program().vocabulary_size;
    for (int32_t k = 0; k < order.count; ++k) logits_[order.rows[k]] = result.logits + k * size;
  }
  return FORERUN_OK;
}

// Brings the rows of `order` to `sublayers` (FORERUN_ALL: all of them) and keeps their taps.
Status Verifier::run_to(Session& session, int32_t sequence, const Tree& tree, const Order& order,
                        int32_t sublayers, const LayerList& taps, forerun_result* result) {
  int32_t listed[kMostRows], wanted[kMostRows];
  const int32_t count = add_gaps(tree, order.rows, order.count, listed);
  forerun_row rows[kMostRows];
  for (int32_t i = 0; i < count; ++i) rows[i] = {sequence, listed[i]};
  for (int32_t i = 0; i < order.count; ++i) wanted[i] = i;
  const forerun_request request = {rows,        count,       steps_.as<int32_t>(), sublayers, wanted,
                                   order.count, taps.layers, taps.count,           0,         nullptr};
  FORERUN_TRY(forward(session, request, result));
  keep_taps(*result, count, order, taps);
  return FORERUN_OK;
}

void Verifier::keep_taps(const forerun_result& result, int32_t listed, const Order& order,
                         const LayerList& wanted) {
  const int64_t width = taps_.width;
  for (int32_t tap = 0; tap < wanted.count; ++tap) {
    float* const kept = kept_taps_.as<float>() + taps_.find(wanted.layers[tap]) * taps_.rows * width;
    for (int32_t i = 0; i < order.count; ++i) {
      std::copy_n(result.taps + (int64_t{tap} * listed + i) * width, width, kept + order.rows[i] * width);
    }
  }
}

// Records the rows that leave after `layer` with their logits; the others go on.
void Verifier::let_rows_leave(Session& session, const float* logits, int32_t layer, Order* order) {
  const int32_t size = session.program().vocabulary_size;
  int32_t staying = 0;
  for (int32_t i = 0; i < order->count; ++i) {
    const int32_t row = order->rows[i];
    const float* const own = logits + int64_t{i} * size;
    if (!policy_->leaves(own, size)) {
      order->rows[staying++] = row;
      continue;
    }
    // A copy: the rows that go on overwrite the session's logits.
    float* const copy = left_logits_.as<float>() + int64_t{row} * size;
    std::copy_n(own, size, copy);
    logits_[row] = copy;
    exit_layers_[row] = layer;
  }
  order->count = staying;
}

Status Verifier::draw_after(Session& session, int32_t row, const forerun_sampling& sampling, int64_t position,
                            int32_t* token_id) const {
  if (draws_) return draw(session, places_[row], sampling, position, token_id);
  return sample(session, logits_[row], sampling, position, token_id);
}

Taps Verifier::taps_of(const int32_t* path, int32_t count) {
  for (int32_t i = 0; i < count; ++i) observed_[i] = places_[path[i]];
  return taps_;
}

}  // namespace forerun
