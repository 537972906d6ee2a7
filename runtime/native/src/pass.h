// One run of rows through the steps of a program.
#ifndef FORERUN_PASS_H
#define FORERUN_PASS_H

#include <cstdint>

#include "session.h"

namespace forerun {

// What a pass writes for the caller. Rows are named by their index in the request.
struct Outputs {
  const int32_t* logits_rows;  // nullptr: row k for logits k
  int32_t logits_count;
  const int32_t* taps;  // layers
  int32_t tap_count;
  int32_t row_count;                 // rows of the request
  bool draws;                        // the largest logit of each block instead of the logits
  const forerun_sampling* sampling;  // [logits_count], how they will probably be drawn from; or nullptr

  // The request's row that logits k are of.
  int32_t logits_row(int32_t k) const { return logits_rows != nullptr ? logits_rows[k] : k; }
};

struct Pass {
  PassRow* rows;  // sorted by the pass
  int32_t row_count;
  const int32_t* steps;  // a row runs those at or above its depth
  int32_t step_count;
  Outputs outputs;
};

// Runs the pass on the session's team or device and records how far its rows have come. Everything was
// checked before: only a device can fail, and the rows then stay where they were.
Status run_pass(Session& session, const Pass& pass);

// Records how far the rows of a pass have come, and keeps the hidden states of those below full depth.
void record_pass(Session& session, const Pass& pass);

// Where a row of depth `done` ends if the steps it runs are the next sublayers in order; -1 if they are not.
int32_t end_of_run(const int32_t* steps, int32_t step_count, int32_t done);

}  // namespace forerun

#endif
