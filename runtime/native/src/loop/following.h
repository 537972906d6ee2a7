// A draft network's cache kept in step with the model's: its rows are made of the model's hidden states,
// which come with every observation. Rows wait until the next draft needs them, so that they share its first
// forward; of a long prompt, or a time without drafts, only the last ones are run.
#ifndef FORERUN_LOOP_FOLLOWING_H
#define FORERUN_LOOP_FOLLOWING_H

#include "draft_network.h"
#include "drafter.h"

namespace forerun {

class Following {
 public:
  // Rows that wait at most; older ones are dropped. They would all be run by the first draft, which has to be
  // quick.
  static constexpr int32_t kRemembered = 64;

  // Keeps the rows that are of this text. `lag` is how many tokens after its own position a row knows: 1 for
  // rows that hold the next token, 0 for rows that are hidden states alone. `width` numbers make a row's
  // state.
  Status begin(DraftNetwork* network, const Beginning& beginning, int32_t lag, int64_t width);

  // Room for the state of the observed row i, which `add` will take: the caller fills it.
  float* state(int32_t i) { return incoming_.as<float>() + i * width_; }

  // How many of the observed rows will be looked at: the last ones.
  int32_t wanted(int32_t count) const { return count < kRemembered + 1 ? count : kRemembered + 1; }

  // The model committed these rows; the states of the last `wanted` of them are in `state`.
  void add(const Observation& observation);

  // Rows were committed whose states are not known: what waits would not follow on.
  void miss() {
    waiting_ = 0;
    unpaired_ = false;
  }

  // Whether there is a row that only the root's token is missing from.
  bool awaits_root() const { return unpaired_; }

  // Stages all rows that wait and, with a lag, the one of the root; *count says how many.
  Status stage(int32_t root, int32_t* count);

  // Commits what `stage` staged, once it has run.
  Status keep(int32_t count);

  // Runs and commits all rows that wait.
  Status catch_up();

 private:
  struct Waiting {
    int32_t position;
    int32_t token_id;
  };

  void wait(int32_t position, int32_t token_id, const float* state);
  Status stage_waiting(int32_t* count);

  DraftNetwork* network_ = nullptr;
  int32_t sequence_ = 0;
  int32_t lag_ = 0;
  int64_t width_ = 0;
  int32_t most_ = 0;
  Region incoming_;  // float [kRemembered + 1, width]
  Region states_;    // float [kRemembered, width], a ring
  Region ordered_;   // float [kRemembered, width], as they are staged
  Region last_;      // float [width], of the unpaired row
  Waiting ring_[kRemembered];
  int32_t first_ = 0;
  int32_t waiting_ = 0;
  bool unpaired_ = false;
  int32_t unpaired_position_ = 0;
};

}  // namespace forerun

#endif
