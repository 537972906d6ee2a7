// The verify call: the whole model over the rows of a draft, with early exits on the way. runtime/verify.py
// is the definition.
#ifndef FORERUN_LOOP_VERIFY_H
#define FORERUN_LOOP_VERIFY_H

#include "drafter.h"
#include "exits.h"

namespace forerun {

class Verifier {
 public:
  // Reserves what a policy that lets rows leave needs; `taps` layers at most are read.
  Status begin(const Session& session, const ExitPolicy* policy);

  // Runs the rows of `draft` to the end, or to where the policy lets each of them leave. The rows that its
  // drafter has not staged are staged here. With `draws`, rows are only drawn from, in this way.
  Status run(Session& session, int32_t sequence, const Draft& draft, const LayerList& taps,
             const forerun_sampling* draws);

  // Draws the token after a row, at an absolute position.
  Status draw_after(Session& session, int32_t row, const forerun_sampling& sampling, int64_t position,
                    int32_t* token_id) const;

  // The layer that a row left after, -1 if it passed all.
  int32_t exit_layer(int32_t row) const { return exit_layers_[row]; }

  // Hidden states of the rows `path`.
  Taps taps_of(const int32_t* path, int32_t count);

 private:
  // Rows that go on, those with fewer sublayers behind them first.
  struct Order {
    int32_t count = 0;
    int32_t rows[kMostRows];
  };

  Status run_all(Session& session, int32_t sequence, const Order& order, const LayerList& taps,
                 const forerun_sampling* draws);
  Status run_with_exits(Session& session, int32_t sequence, const Tree& tree, Order order,
                        const LayerList& taps);
  Status run_to(Session& session, int32_t sequence, const Tree& tree, const Order& order, int32_t sublayers,
                const LayerList& taps, forerun_result* result);
  void keep_taps(const forerun_result& result, int32_t listed, const Order& order, const LayerList& wanted);
  void let_rows_leave(Session& session, const float* logits, int32_t layer, Order* order);

  const ExitPolicy* policy_ = nullptr;
  bool draws_ = false;
  int32_t exit_layers_[kMostRows];
  int32_t places_[kMostRows];       // row of the tree → row of the call
  const float* logits_[kMostRows];  // by row of the tree, without `draws`
  int32_t observed_[kMostRows];     // rows of the call of an accepted path
  Taps taps_;
  Region left_logits_;  // float [kMostRows, V], of rows that left
  Region kept_taps_;    // float [L, kMostRows, D], by row of the tree; only with exits
  Region steps_;        // int32 [2L]
};

}  // namespace forerun

#endif
