// forward: checks a request, finds the pending ancestors to take along, and runs passes.

#include <algorithm>

#include "clock.h"
#include "pass.h"
#include "session.h"

namespace forerun {
namespace {

struct Plan {
  const forerun_request* request;
  const int32_t* steps;
  int32_t step_count;
  int32_t logits_count;
  int32_t goal;           // one above the highest step; 0 without steps
  bool regular;           // every row that runs simply continues: ancestors can share its pass
  int32_t carried_count;  // entries of the workspace's `carried`
};

Sequence& sequence_of(Session& session, const forerun_row& row) {
  return session.sequences()[row.sequence];
}

int32_t slot_of(Session& session, const forerun_row& row) {
  return sequence_of(session, row).committed + row.index;
}

Row& row_of(Session& session, const forerun_row& row) {
  return sequence_of(session, row).rows[slot_of(session, row)];
}

bool contains(const int32_t* steps, int32_t count, int32_t step) {
  return std::find(steps, steps + count, step) != steps + count;
}

Status check_list(const char* name, const int32_t* list, int32_t count, int32_t most, int32_t limit) {
  if (count < 0 || count > most || (count > 0 && list == nullptr)) {
    return fail(FORERUN_INVALID_ARGUMENT, "%s has %d entries; it may have 0 to %d", name, count, most);
  }
  for (int32_t i = 0; i < count; ++i) {
    if (list[i] < 0 || list[i] >= limit) {
      return fail(FORERUN_INVALID_ARGUMENT, "%s names %d; it must be between 0 and %d", name, list[i],
                  limit - 1);
    }
  }
  return FORERUN_OK;
}

Status check_rows(Session& session, const forerun_request& request) {
  const int32_t most = session.program().max_rows;
  if (request.rows == nullptr || request.row_count < 1 || request.row_count > most) {
    return fail(FORERUN_INVALID_ARGUMENT, "%d rows; one forward takes 1 to %d", request.row_count, most);
  }
  for (int32_t i = 0; i < request.row_count; ++i) {
    const forerun_row& listed = request.rows[i];
    Sequence* sequence = nullptr;
    FORERUN_TRY(find_sequence(session, listed.sequence, &sequence));
    if (listed.index < 0 || listed.index >= sequence->staged) {
      return fail(FORERUN_INVALID_ARGUMENT, "row %d of sequence %d is not staged; there are %d staged rows",
                  listed.index, listed.sequence, sequence->staged);
    }
    Row& row = row_of(session, listed);
    if (row.listed == session.call) {
      return fail(FORERUN_INVALID_ARGUMENT, "row %d of sequence %d is listed twice", listed.index,
                  listed.sequence);
    }
    if (row.inexact) {
      return fail(
          FORERUN_INEXACT_ROW,
          "row %d of sequence %d did not pass the model's sublayers in order, so it cannot be continued",
          listed.index, listed.sequence);
    }
    row.listed = session.call;
  }
  return FORERUN_OK;
}

// Reads the steps: how far they go, and whether they are a run of sublayers that every row simply continues.
Status read_steps(Session& session, Plan* plan) {
  const forerun_request& request = *plan->request;
  const bool all = request.step_count == FORERUN_ALL;
  plan->steps = all ? session.work.canonical.as<int32_t>() : request.steps;
  plan->step_count = all ? session.full_depth() : request.step_count;
  if (!all) {
    FORERUN_TRY(check_list("steps", plan->steps, plan->step_count, 1 << 20, session.full_depth()));
  }
  for (int32_t i = 0; i < plan->step_count; ++i) plan->goal = std::max(plan->goal, plan->steps[i] + 1);
  plan->regular = true;
  for (int32_t i = 1; i < plan->step_count; ++i) {
    plan->regular = plan->regular && plan->steps[i] == plan->steps[i - 1] + 1;
  }
  for (int32_t i = 0; i < request.row_count && plan->step_count > 0; ++i) {
    plan->regular = plan->regular && row_of(session, request.rows[i]).done >= plan->steps[0];
  }
  return FORERUN_OK;
}

Status check_outputs(Session& session, Plan* plan) {
  const forerun_request& request = *plan->request;
  const bool all = request.logits_count == FORERUN_ALL;
  plan->logits_count = all ? request.row_count : request.logits_count;
  if (!all) {
    FORERUN_TRY(check_list("logits_rows", request.logits_rows, request.logits_count, request.row_count,
                           request.row_count));
  }
  for (int32_t k = 0; k < plan->logits_count; ++k) {
    const forerun_row& listed = request.rows[all ? k : request.logits_rows[k]];
    if (row_of(session, listed).done < session.full_depth()) continue;
    return fail(FORERUN_NOT_COMPUTED, "row %d of sequence %d has run in full before; its logits are gone",
                listed.index, listed.sequence);
  }
  FORERUN_TRY(check_list("taps", request.taps, request.tap_count, session.program().layers,
                         session.program().layers));
  for (int32_t t = 0; t < request.tap_count; ++t) {
    const int32_t step = 2 * request.taps[t] + 1;
    const bool listed = contains(plan->steps, plan->step_count, step);
    for (int32_t i = 0; i < request.row_count; ++i) {
      const int32_t done = row_of(session, request.rows[i]).done;
      const bool stands_there = done == step + 1 && done < session.full_depth();
      if (stands_there || (listed && done <= step)) continue;
      return fail(FORERUN_NOT_COMPUTED,
                  "row %d of sequence %d does not pass layer %d in this call: no tap there",
                  request.rows[i].index, request.rows[i].sequence, request.taps[t]);
    }
  }
  return FORERUN_OK;
}

// Refuses a row that would attend to a row staged as a hidden state above the layer.
Status check_floor(const Sequence& sequence, int32_t slot, int32_t first_attention) {
  const int32_t parent = sequence.rows[slot].parent;
  const int32_t floor = parent >= 0 ? sequence.rows[parent].floor : 0;
  if (first_attention >= floor) return FORERUN_OK;
  return fail(FORERUN_NOT_COMPUTED,
              "the row at position %d needs keys and values of sublayer %d, but a row before it entered at "
              "sublayer %d",
              sequence.rows[slot].position, first_attention, floor);
}

// Refuses a row that would attend to an inexact ancestor in a layer that the ancestor skipped.
Status check_tainted(Session& session, const Plan& plan, const forerun_row& listed) {
  const Sequence& sequence = sequence_of(session, listed);
  const Row& row = row_of(session, listed);
  for (int32_t slot = row.parent; slot >= sequence.committed; slot = sequence.rows[slot].parent) {
    if (!sequence.rows[slot].inexact) continue;
    for (int32_t i = 0; i < plan.step_count; ++i) {
      const int32_t step = plan.steps[i];
      const bool attends = step % 2 == 0 && step >= row.done;
      if (!attends || is_filled(session, sequence, slot, step / 2)) continue;
      return fail(FORERUN_INEXACT_ROW,
                  "row %d of sequence %d attends in layer %d, which its ancestor, row %d, has skipped",
                  listed.index, listed.sequence, step / 2, slot - sequence.committed);
    }
  }
  return FORERUN_OK;
}

Status carry(Session& session, Plan* plan, int32_t number, int32_t slot) {
  const Sequence& sequence = session.sequences()[number];
  const int32_t done = sequence.rows[slot].done;
  FORERUN_TRY(check_floor(sequence, slot, done + done % 2));
  session.work.carried.as<PassRow>()[plan->carried_count++] = {number, slot, -1, done};
  return FORERUN_OK;
}

// Adds the pending ancestors of one listed row that are not listed themselves.
Status carry_ancestors(Session& session, Plan* plan, const forerun_row& listed) {
  Sequence& sequence = sequence_of(session, listed);
  if (sequence.walked != session.call) {
    sequence.walked = session.call;
    for (int32_t i = 0; i < sequence.pending_count; ++i) {
      const int32_t slot = sequence.pending[i];
      if (sequence.rows[slot].done < plan->goal) FORERUN_TRY(carry(session, plan, listed.sequence, slot));
    }
  }
  int32_t slot = row_of(session, listed).parent;
  for (; slot >= sequence.committed; slot = sequence.rows[slot].parent) {
    Row& row = sequence.rows[slot];
    if (row.walked == session.call) break;
    row.walked = session.call;
    if (row.listed == session.call || row.inexact || row.done >= plan->goal) continue;
    if (row.tainted) {
      return fail(
          FORERUN_INEXACT_ROW,
          "row %d of sequence %d has not run, and it lies below an inexact row: it must be listed too",
          slot - sequence.committed, listed.sequence);
    }
    FORERUN_TRY(carry(session, plan, listed.sequence, slot));
  }
  return FORERUN_OK;
}

Status plan_ancestors(Session& session, Plan* plan) {
  for (int32_t i = 0; i < plan->request->row_count; ++i) {
    const forerun_row& listed = plan->request->rows[i];
    const Row& row = row_of(session, listed);
    if (row.done >= plan->goal) continue;
    int32_t first_attention = session.full_depth();
    for (int32_t k = 0; k < plan->step_count; ++k) {
      const int32_t step = plan->steps[k];
      if (step % 2 == 0 && step >= row.done) first_attention = std::min(first_attention, step);
    }
    FORERUN_TRY(check_floor(sequence_of(session, listed), slot_of(session, listed), first_attention));
    if (row.tainted) FORERUN_TRY(check_tainted(session, *plan, listed));
    FORERUN_TRY(carry_ancestors(session, plan, listed));
  }
  return FORERUN_OK;
}

// A carried row that runs in a pass of its own must not wait for a listed one.
Status check_order(Session& session, const Plan& plan) {
  const PassRow* carried = session.work.carried.as<PassRow>();
  for (int32_t i = 0; i < plan.carried_count; ++i) {
    const Sequence& sequence = session.sequences()[carried[i].sequence];
    int32_t slot = sequence.rows[carried[i].slot].parent;
    for (; slot >= sequence.committed; slot = sequence.rows[slot].parent) {
      const Row& row = sequence.rows[slot];
      if (row.listed != session.call || row.done >= plan.goal) continue;
      return fail(FORERUN_INVALID_ARGUMENT,
                  "row %d of sequence %d lies between listed rows and has not run: it must be listed too",
                  carried[i].slot - sequence.committed, carried[i].sequence);
    }
  }
  return FORERUN_OK;
}

// Steps min(done) … goal - 1 of some rows, without outputs.
Pass plain_pass(Session& session, const Plan& plan, PassRow* rows, int32_t count) {
  int32_t first = plan.goal;
  for (int32_t i = 0; i < count; ++i) first = std::min(first, rows[i].done);
  return {rows, count, session.work.canonical.as<int32_t>() + first, plan.goal - first, Outputs{}};
}

// Takes the pending ancestors through what they miss, in passes of their own.
Status run_carried(Session& session, const Plan& plan, int32_t* passes) {
  PassRow* carried = session.work.carried.as<PassRow>();
  std::sort(carried, carried + plan.carried_count, [&session](const PassRow& left, const PassRow& right) {
    const int32_t a = session.sequences()[left.sequence].rows[left.slot].position;
    const int32_t b = session.sequences()[right.sequence].rows[right.slot].position;
    return a != b                            ? a < b
           : left.sequence != right.sequence ? left.sequence < right.sequence
                                             : left.slot < right.slot;
  });
  for (int32_t i = 0; i < plan.carried_count; i += session.program().max_rows, ++*passes) {
    const int32_t count = std::min(session.program().max_rows, plan.carried_count - i);
    FORERUN_TRY(run_pass(session, plain_pass(session, plan, carried + i, count)));
  }
  return FORERUN_OK;
}

// Adds the listed rows that have something to do; returns the number of rows.
int32_t add_listed(Session& session, const Plan& plan, PassRow* rows, int32_t count) {
  for (int32_t i = 0; i < plan.request->row_count; ++i) {
    const forerun_row& listed = plan.request->rows[i];
    const int32_t done = row_of(session, listed).done;
    if (done >= plan.goal && plan.logits_count == 0 && plan.request->tap_count == 0) continue;
    if (done >= session.full_depth()) continue;
    rows[count++] = {listed.sequence, slot_of(session, listed), i, done};
  }
  return count;
}

Status run_plan(Session& session, const Plan& plan, bool together, int32_t* passes) {
  const forerun_request& request = *plan.request;
  PassRow* rows = session.work.rows.as<PassRow>();
  *passes = 0;
  if (!together) FORERUN_TRY(run_carried(session, plan, passes));
  const int32_t shared = together ? plan.carried_count : 0;
  std::copy_n(session.work.carried.as<PassRow>(), shared, rows);
  const int32_t count = add_listed(session, plan, rows, shared);
  if (count == 0) return FORERUN_OK;
  Pass pass = together ? plain_pass(session, plan, rows, count)
                       : Pass{rows, count, plan.steps, plan.step_count, Outputs{}};
  const bool all = request.logits_count == FORERUN_ALL;
  pass.outputs = {all ? nullptr : request.logits_rows,
                  plan.logits_count,
                  request.taps,
                  request.tap_count,
                  request.row_count,
                  request.draws != 0,
                  request.sampling};
  ++*passes;
  return run_pass(session, pass);
}

}  // namespace

Status forward(Session& session, const forerun_request& request, forerun_result* result) {
  Profile* const profile = session.profile.get();
  if (profile != nullptr) profile->begin();
  const uint64_t begin_ns = now_ns();
  if (++session.call == 0) ++session.call;  // 0 means "never"
  Plan plan{};
  plan.request = &request;
  FORERUN_TRY(check_rows(session, request));
  FORERUN_TRY(read_steps(session, &plan));
  FORERUN_TRY(check_outputs(session, &plan));
  FORERUN_TRY(plan_ancestors(session, &plan));
  const bool together = plan.regular && plan.carried_count + request.row_count <= session.program().max_rows;
  if (!together) FORERUN_TRY(check_order(session, plan));
  session.work.draw_count = 0;
  FORERUN_TRY(run_plan(session, plan, together, &result->passes));
  for (int32_t i = 0; i < request.row_count; ++i) {
    Sequence& sequence = sequence_of(session, request.rows[i]);
    if (sequence.walked != session.call) continue;
    sequence.walked = 0;  // once a sequence
    drop_finished(session, sequence);
  }
  result->carried_rows = plan.carried_count;
  result->logits = session.work.logits.as<float>();
  result->taps = session.work.taps.as<float>();
  result->elapsed_ms = static_cast<double>(now_ns() - begin_ns) * 1e-6;
  if (profile != nullptr) profile->end();
  return FORERUN_OK;
}

}  // namespace forerun
