// What a pass leaves in the records of its rows.

#include <cstring>

#include "pass.h"

namespace forerun {
namespace {

Row& row_of(Session& session, const PassRow& row) {
  return session.sequences()[row.sequence].rows[row.slot];
}

// Records which layers hold keys and values of a row that ran steps out of order.
void mark_inexact(Session& session, const Pass& pass, const PassRow& listed) {
  Sequence& sequence = session.sequences()[listed.sequence];
  uint64_t* words = sequence.filled + static_cast<int64_t>(listed.slot) * session.filled_words();
  std::memset(words, 0, session.filled_words() * sizeof(uint64_t));
  for (int32_t l = 0; l < session.program().layers; ++l) {
    if (is_filled(session, sequence, listed.slot, l)) words[l / 64] |= uint64_t{1} << (l % 64);
  }
  for (int32_t i = 0; i < pass.step_count; ++i) {
    const int32_t step = pass.steps[i], l = step / 2;
    if (step % 2 == 0 && step >= listed.done) words[l / 64] |= uint64_t{1} << (l % 64);
  }
  sequence.rows[listed.slot].inexact = true;
}

// Keeps the depth and, below full depth, the hidden state of a row that ran; true if it became inexact.
bool record_row(Session& session, const Pass& pass, int32_t index) {
  const PassRow& listed = pass.rows[index];
  Sequence& sequence = session.sequences()[listed.sequence];
  Row& row = sequence.rows[listed.slot];
  const int32_t end = end_of_run(pass.steps, pass.step_count, row.done);
  if (end == row.done) return false;
  row.features = -1;
  if (end < 0 || row.tainted) {
    mark_inexact(session, pass, listed);
    return true;
  }
  row.done = end;
  const int64_t hidden_size = session.program().hidden_size;
  if (end < session.full_depth()) {
    std::memcpy(sequence.hidden + listed.slot * hidden_size,
                session.work.hidden.as<float>() + index * hidden_size, hidden_size * sizeof(float));
  }
  return false;
}

}  // namespace

int32_t end_of_run(const int32_t* steps, int32_t step_count, int32_t done) {
  int32_t next = done;
  for (int32_t i = 0; i < step_count; ++i) {
    if (steps[i] < done) continue;
    if (steps[i] != next) return -1;
    ++next;
  }
  return next;
}

void record_pass(Session& session, const Pass& pass) {
  bool inexact = false;
  for (int32_t i = 0; i < pass.row_count; ++i) inexact = record_row(session, pass, i) || inexact;
  if (!inexact) return;
  // A row that ran in order beside an ancestor that did not has read what the ancestor computed.
  for (int32_t i = 0; i < pass.row_count; ++i) spread_taint(session.sequences()[pass.rows[i].sequence]);
  for (int32_t i = 0; i < pass.row_count; ++i) {
    const Row& row = row_of(session, pass.rows[i]);
    const bool ran = row.done != pass.rows[i].done;
    if (ran && row.tainted && !row.inexact) mark_inexact(session, pass, pass.rows[i]);
  }
}

}  // namespace forerun
