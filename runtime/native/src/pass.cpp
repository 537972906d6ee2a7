#include "pass.h"

#include <algorithm>
#include <cstring>

namespace forerun {
namespace {

// What the threads of the team share during a pass.
struct Job {
  const forerun_program* program;
  const Pass* pass;
  forerun_call call;      // copied by every thread: `rows` and `hidden` change from step to step
  const int32_t* starts;  // depth of each row, ascending
  const int32_t* where;   // request index → row of the pass
  int32_t embed_rows;
  float* taps;
  float* head_hidden;  // where rows for the head are brought together,
  float* head_input;   // or where they lie together already
};

// What they share while computing blocks of logits.
struct BlockJob {
  void (*head_blocks)(const forerun_call*, int32_t);
  forerun_call call;
};

Row& row_of(Session& session, const PassRow& row) {
  return session.sequences()[row.sequence].rows[row.slot];
}

// Deeper rows come later, so that the rows active at a step are always the first ones; rows that start from
// token ids come before all others, so that embedding is a prefix too.
void sort_rows(Session& session, const Pass& pass) {
  const auto key = [&session](const PassRow& row) {
    const bool by_token = row.done == 0 && row_of(session, row).token >= 0;
    return 2 * static_cast<int64_t>(row.done) + (by_token ? 0 : 1);
  };
  std::sort(pass.rows, pass.rows + pass.row_count, [&key](const PassRow& left, const PassRow& right) {
    const int64_t a = key(left), b = key(right);
    if (a != b) return a < b;
    if (left.sequence != right.sequence) return left.sequence < right.sequence;
    return left.slot < right.slot;
  });
}

// Slots of the branch from gather_start to the row itself.
void fill_gather(const Sequence& sequence, int32_t slot, int32_t* gather) {
  const Row& leaf = sequence.rows[slot];
  int32_t at = slot;
  for (int32_t position = leaf.position; position >= leaf.gather_start; --position) {
    gather[position - leaf.gather_start] = at;
    at = sequence.rows[at].parent;
  }
}

// Puts the features of a token's row, which come first, into the call.
void copy_features(const Session& session, const Sequence& sequence, const Row& row, int32_t index) {
  const int64_t size = session.program().feature_size;
  if (size == 0) return;
  std::memcpy(session.work.features.as<float>() + index * size, sequence.features + row.features * size,
              size * sizeof(float));
}

// Fills the arrays of the call; returns how many rows start from token ids.
int32_t fill_rows(Session& session, const Pass& pass) {
  const int64_t hidden_size = session.program().hidden_size;
  Workspace& work = session.work;
  int32_t embed_rows = 0;
  for (int32_t i = 0; i < pass.row_count; ++i) {
    const PassRow& listed = pass.rows[i];
    const Sequence& sequence = session.sequences()[listed.sequence];
    const Row& row = sequence.rows[listed.slot];
    work.starts.as<int32_t>()[i] = row.done;
    work.token_ids.as<int32_t>()[i] = row.token;
    work.positions.as<int32_t>()[i] = row.position;
    work.sequences.as<int32_t>()[i] = listed.sequence;
    work.slots.as<int32_t>()[i] = listed.slot;
    work.gather_start.as<int32_t>()[i] = row.gather_start;
    fill_gather(sequence, listed.slot, work.gather.as<int32_t>() + i * work.gather_stride);
    if (listed.request >= 0) work.where.as<int32_t>()[listed.request] = i;
    if (row.done == 0 && row.token >= 0) {
      copy_features(session, sequence, row, embed_rows++);
    } else {
      std::memcpy(work.hidden.as<float>() + i * hidden_size, sequence.hidden + listed.slot * hidden_size,
                  hidden_size * sizeof(float));
    }
  }
  return embed_rows;
}

forerun_call make_call(Session& session) {
  const Workspace& work = session.work;
  forerun_call call{};
  call.threads = session.team->threads();
  call.token_ids = work.token_ids.as<int32_t>();
  call.features = work.features.as<float>();
  call.positions = work.positions.as<int32_t>();
  call.hidden = work.hidden.as<float>();
  call.logits = work.logits.as<float>();
  call.maxima = work.maxima.as<float>();
  call.items = work.items.as<int32_t>();
  call.block_logits = work.block_logits.as<float>();
  call.keys = session.cache.keys();
  call.values = session.cache.values();
  call.capacity = session.cache.capacity();
  call.sequences = work.sequences.as<int32_t>();
  call.slots = work.slots.as<int32_t>();
  call.gather_start = work.gather_start.as<int32_t>();
  call.gather = work.gather.as<int32_t>();
  call.gather_stride = work.gather_stride;
  call.weights = session.bundle->weights();
  call.arena = work.arena.as<uint8_t>();
  call.scratch = work.scratch.as<uint8_t>();
  call.scratch_stride = work.scratch_stride;
  call.barrier = Team::barrier;
  call.team = session.team;
  return call;
}

// The row of the pass at which the rows for the head begin, if they are in order and aligned; -1 otherwise.
int32_t find_head_rows(const Session& session, const Outputs& outputs, const int32_t* where) {
  if (outputs.logits_count == 0) return -1;
  const int32_t first = where[outputs.logits_row(0)];
  const int64_t offset = static_cast<int64_t>(first) * session.program().hidden_size * sizeof(float);
  if (offset % kAlignment != 0) return -1;
  for (int32_t k = 1; k < outputs.logits_count; ++k) {
    if (where[outputs.logits_row(k)] != first + k) return -1;
  }
  return first;
}

// Ends the time that a profile puts down to no kernel: what this thread has done since its last one.
void leave_core(const forerun_call& call, int32_t tid) {
  if (call.profile != nullptr) static_cast<Profile*>(call.profile)->leave_core(tid);
}

// One thread's part of a pass on the team.
class TeamSteps {
 public:
  TeamSteps(const Job& job, int32_t tid) : job_(job), call_(job.call), tid_(tid) {}

  void embed(int32_t rows) {
    call_.rows = rows;
    leave_core(call_, tid_);
    job_.program->embed(&call_, tid_);
  }

  void run(int32_t step, int32_t rows) {
    call_.rows = rows;
    leave_core(call_, tid_);
    (step % 2 == 0 ? job_.program->attention : job_.program->feed_forward)(&call_, step / 2, tid_);
  }

  // The next step overwrites what is read here, hence the barrier.
  void read_tap(float* tap) {
    copy_rows(job_.pass->outputs.row_count, tap, [this](int32_t k) -> int64_t { return job_.where[k]; });
    call_.barrier(call_.team, tid_);
  }

  void run_head() {
    const Outputs& outputs = job_.pass->outputs;
    if (job_.head_input == job_.head_hidden) {
      copy_rows(outputs.logits_count, job_.head_hidden,
                [&](int32_t k) -> int64_t { return job_.where[outputs.logits_row(k)]; });
      call_.barrier(call_.team, tid_);
    }
    call_.rows = outputs.logits_count;
    call_.hidden = job_.head_input;
    leave_core(call_, tid_);
    (outputs.draws ? job_.program->head_maxima : job_.program->head)(&call_, tid_);
  }

 private:
  // Copies this thread's share of the rows to `to`; `source(k)` is the row of the pass that becomes row k.
  template <typename Source>
  void copy_rows(int32_t count, float* to, Source source) {
    const int64_t hidden_size = job_.program->hidden_size;
    for (int32_t k = tid_; k < count; k += call_.threads) {
      std::memcpy(to + k * hidden_size, call_.hidden + source(k) * hidden_size, hidden_size * sizeof(float));
    }
  }

  const Job& job_;
  forerun_call call_;
  int32_t tid_;
};

// A pass on a device.
class DeviceSteps {
 public:
  DeviceSteps(const Job& job, DeviceSession* device) : job_(job), device_(device) {}

  void embed(int32_t rows) { device_->embed(rows); }
  void run(int32_t step, int32_t rows) { device_->run_step(step, rows); }

  void read_tap(float* tap) {
    for (int32_t k = 0; k < job_.pass->outputs.row_count; ++k) {
      device_->read_hidden(job_.where[k], 1, tap + k * static_cast<int64_t>(job_.program->hidden_size));
    }
  }

  void run_head() {
    const Outputs& outputs = job_.pass->outputs;
    for (int32_t k = 0; k < outputs.logits_count; ++k)
      device_->give_head(job_.where[outputs.logits_row(k)], k);
    device_->run_head(outputs.logits_count, outputs.draws, outputs.sampling);
  }

 private:
  const Job& job_;
  DeviceSession* device_;
};

// Taps of the layer that has just run, or that rows start after: those are in place and not yet touched.
template <typename Steps>
void read_taps(const Job& job, int32_t layer, Steps* steps) {
  const Outputs& outputs = job.pass->outputs;
  const int64_t tap_size = static_cast<int64_t>(outputs.row_count) * job.program->hidden_size;
  for (int32_t tap = 0; tap < outputs.tap_count; ++tap) {
    if (outputs.taps[tap] == layer) steps->read_tap(job.taps + tap * tap_size);
  }
}

// Taps of layers that no row runs in this pass: all of them start just after.
template <typename Steps>
void read_taps_at_start(const Job& job, Steps* steps) {
  const Pass& pass = *job.pass;
  for (int32_t tap = 0; tap < pass.outputs.tap_count; ++tap) {
    const int32_t layer = pass.outputs.taps[tap];
    const int32_t* end = pass.steps + pass.step_count;
    if (std::find(pass.steps, end, 2 * layer + 1) == end) read_taps(job, layer, steps);
  }
}

// The way through the pass. Every thread of a team takes the same turns.
template <typename Steps>
void run_steps(const Job& job, Steps* steps) {
  const Pass& pass = *job.pass;
  if (job.embed_rows > 0) steps->embed(job.embed_rows);
  read_taps_at_start(job, steps);
  for (int32_t i = 0; i < pass.step_count; ++i) {
    const int32_t step = pass.steps[i];
    const int32_t* end = std::upper_bound(job.starts, job.starts + pass.row_count, step);
    const auto rows = static_cast<int32_t>(end - job.starts);
    if (rows > 0) steps->run(step, rows);
    if (step % 2 == 1) read_taps(job, step / 2, steps);
  }
  if (pass.outputs.logits_count > 0) steps->run_head();
}

void run_on_team(void* argument, int32_t tid) {
  const Job& job = *static_cast<const Job*>(argument);
  TeamSteps steps(job, tid);
  run_steps(job, &steps);
}

// Whether the hidden state of a row that ran is kept: it ended below full depth.
bool keeps_hidden(const Session& session, const Pass& pass) {
  for (int32_t i = 0; i < pass.row_count; ++i) {
    if (end_of_run(pass.steps, pass.step_count, pass.rows[i].done) < session.full_depth()) return true;
  }
  return false;
}

Status run_on_device(Session& session, const Job& job) {
  DeviceSession* const device = session.device.get();
  device->send_rows(job.pass->row_count, job.embed_rows);
  DeviceSteps steps(job, device);
  run_steps(job, &steps);
  if (keeps_hidden(session, *job.pass)) {
    device->read_hidden(0, job.pass->row_count, session.work.hidden.as<float>());
  }
  return device->finish();
}

}  // namespace

Status run_pass(Session& session, const Pass& pass) {
  sort_rows(session, pass);
  Job job{};
  job.program = &session.program();
  job.pass = &pass;
  job.embed_rows = fill_rows(session, pass);
  job.call = make_call(session);
  if (session.profile != nullptr) {
    job.call.mark = Profile::mark;
    job.call.profile = session.profile.get();
  }
  job.starts = session.work.starts.as<int32_t>();
  job.where = session.work.where.as<int32_t>();
  job.taps = session.work.taps.as<float>();
  job.head_hidden = session.work.head_hidden.as<float>();
  const int32_t first = find_head_rows(session, pass.outputs, job.where);
  job.head_input =
      first < 0 ? job.head_hidden : job.call.hidden + static_cast<int64_t>(first) * job.program->hidden_size;
  if (session.device != nullptr) {
    FORERUN_TRY(run_on_device(session, job));
  } else {
    session.team->run(run_on_team, &job);
  }
  if (pass.outputs.draws) {
    session.work.draw_hidden = job.head_input;
    session.work.draw_count = pass.outputs.logits_count;
  }
  record_pass(session, pass);
  return FORERUN_OK;
}

Status compute_blocks(Session& session, int32_t row, int32_t count) {
  if (session.device != nullptr) return session.device->compute_blocks(row, count);
  // Waking the team for so few takes longer than computing them.
  constexpr int32_t kFew = 4;
  BlockJob job{session.program().head_blocks, make_call(session)};
  job.call.rows = 1;
  // Kernels only read it.
  job.call.hidden = const_cast<float*>(session.work.draw_hidden) +
                    static_cast<int64_t>(row) * session.program().hidden_size;
  job.call.item_count = count;
  const Team::Function compute = [](void* argument, int32_t tid) {
    const BlockJob& shared = *static_cast<const BlockJob*>(argument);
    shared.head_blocks(&shared.call, tid);
  };
  if (count > kFew) {
    session.team->run(compute, &job);
    return FORERUN_OK;
  }
  job.call.threads = 1;
  job.call.barrier = [](void*, int32_t) {};
  Team::run_alone(compute, &job);
  return FORERUN_OK;
}

int32_t blocks_ahead(const Session& session, int32_t row, const int32_t** blocks) {
  return session.device != nullptr ? session.device->blocks_ahead(row, blocks) : 0;
}

}  // namespace forerun
