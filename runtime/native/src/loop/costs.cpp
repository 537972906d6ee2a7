#include "costs.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "../clock.h"
#include "calls.h"

namespace forerun {
namespace {

constexpr int32_t kSizes[] = {1, 2, 3, 4, 6, 8, 12, 16, 24, 32};
constexpr int32_t kLargest = 32;
constexpr int32_t kRounds = 3;
// Calls that take more than this many plain ones are the last to be measured: where rows are that dear, as
// they are on machines that compute slowly, all further ones cost alike, and measuring them takes seconds.
constexpr double kSteep = 3.5;
// How much of a surprise is taken for a slower machine, and how much for a cost of this number of rows. Much
// less: where calls of one row alone are seen, all that they say about others is that the machine is faster
// or slower.
constexpr double kFast = 0.2, kSlow = 0.02;

double middle(double* values, int32_t count) {
  std::sort(values, values + count);
  return (values[(count - 1) / 2] + values[count / 2]) / 2;
}

// Times a call on so many rows, which are dropped again.
Status time_call(Session& session, int32_t sequence, int32_t token_id, int32_t rows, double* elapsed_ms) {
  int32_t token_ids[kLargest];
  std::fill_n(token_ids, rows, token_id);
  Sequence& target = session.sequences()[sequence];
  FORERUN_TRY(stage_rows(session, target, {rows, token_ids, nullptr, nullptr, nullptr, 0}));
  const Rows listed(sequence, 0, rows);
  const forerun_request request = {listed.rows, rows,    nullptr, FORERUN_ALL, nullptr,
                                   FORERUN_ALL, nullptr, 0,       1,           nullptr};
  forerun_result result;
  const uint64_t begin_ns = now_ns();
  const Status status = forward(session, request, &result);
  *elapsed_ms = static_cast<double>(now_ns() - begin_ns) * 1e-6;
  FORERUN_TRY(commit_path(session, sequence, 0, nullptr));
  return status;
}

}  // namespace

Status LiveCosts::set(const forerun_costs& measured) {
  bool sound = measured.count >= 2 && measured.count <= FORERUN_MOST_COSTS;
  for (int32_t i = 0; sound && i < measured.count; ++i) {
    sound = (i == 0 ? measured.rows[0] == 1 : measured.rows[i] > measured.rows[i - 1]) &&
            measured.ms[i] > 0 && std::isfinite(measured.ms[i]);
  }
  if (!sound) {
    return fail(FORERUN_INVALID_ARGUMENT,
                "costs must be of 2 to %d numbers of rows, ascending from 1, and above 0 ms",
                FORERUN_MOST_COSTS);
  }
  count_ = measured.count;
  std::copy_n(measured.rows, count_, rows_);
  std::copy_n(measured.ms, count_, ms_);
  slowness_ = 1;
  make_rising();
  return FORERUN_OK;
}

void LiveCosts::note(int32_t rows, double ms) {
  const double surprise = std::min(std::max(ms / (between(rows) * slowness_), 0.5), 2.0);
  slowness_ *= std::pow(surprise, kFast);
  int32_t nearest = 0;
  for (int32_t i = 1; i < count_; ++i) {
    if (std::abs(rows_[i] - rows) < std::abs(rows_[nearest] - rows)) nearest = i;
  }
  ms_[nearest] *= std::pow(surprise, kSlow);
  make_rising();
}

void LiveCosts::make_rising() {
  rising_[0] = ms_[0];
  for (int32_t i = 1; i < count_; ++i) rising_[i] = std::max(rising_[i - 1], ms_[i]);
}

double LiveCosts::between(int32_t rows) const {
  const int32_t* const found = std::lower_bound(rows_, rows_ + count_, rows);
  const int32_t place = std::min(std::max(static_cast<int32_t>(found - rows_), 1), count_ - 1);
  const int32_t left = rows_[place - 1];
  const double low = rising_[place - 1];
  const double slope = (rising_[place] - low) / (rows_[place] - left);
  return low + slope * (rows - left);
}

Status measure_costs(Session& session, int32_t sequence, int32_t token_id, forerun_costs* costs) {
  const forerun_program& program = session.program();
  const int32_t room = session.options.capacity - committed_length(session, sequence);
  const int32_t most = std::min({program.max_rows, program.max_gather, kMostRows});
  costs->count = 0;
  costs->whole = std::min(most, kLargest) <= room;
  // The first round warms up, and finds the last size worth measuring.
  for (const int32_t rows : kSizes) {
    const int32_t place = costs->count;
    if (rows > std::min(most, room) || (place > 0 && costs->ms[place - 1] > kSteep * costs->ms[0])) break;
    FORERUN_TRY(time_call(session, sequence, token_id, rows, &costs->ms[place]));
    costs->rows[costs->count++] = rows;
  }
  double samples[FORERUN_MOST_COSTS][kRounds];
  for (int32_t round = 0; round < kRounds; ++round) {
    for (int32_t i = 0; i < costs->count; ++i) {
      FORERUN_TRY(time_call(session, sequence, token_id, costs->rows[i], &samples[i][round]));
    }
  }
  for (int32_t i = 0; i < costs->count; ++i) costs->ms[i] = middle(samples[i], kRounds);
  if (costs->count >= 2) return FORERUN_OK;
  return fail(FORERUN_CONTEXT_FULL, "the context has room for %d rows; measuring costs takes 2", room);
}

}  // namespace forerun
