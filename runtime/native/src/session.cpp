#include "session.h"

#include <new>

namespace forerun {
namespace {

constexpr int32_t kMaxSequences = 1 << 16;
constexpr int32_t kMaxCapacity = 1 << 26;

Status check_option(const char* name, int32_t value, int32_t most) {
  if (value >= 1 && value <= most) return FORERUN_OK;
  return fail(FORERUN_INVALID_ARGUMENT, "%s is %d; it must be between 1 and %d (0 = default)", name, value,
              most);
}

Status reserve_rows(Session& session) {
  const uint64_t sequences = session.options.sequences;
  const uint64_t slots = sequences * static_cast<uint64_t>(session.options.capacity);
  const uint64_t hidden_size = session.program().hidden_size;
  const uint64_t words = session.filled_words();
  FORERUN_TRY(session.sequence_records.reserve(sequences, sizeof(Sequence), "the sequences"));
  FORERUN_TRY(session.row_records.reserve(slots, sizeof(Row), "the rows of all sequences"));
  FORERUN_TRY(session.hidden_store.reserve(slots, hidden_size * sizeof(float), "pending hidden states"));
  FORERUN_TRY(session.filled_bits.reserve(slots, words * sizeof(uint64_t), "the rows of all sequences"));
  FORERUN_TRY(session.pending_slots.reserve(slots, sizeof(int32_t), "the rows of all sequences"));
  const uint64_t feature_size = session.program().feature_size, waiting = session.program().max_rows;
  if (feature_size > 0) {
    const uint64_t bytes = feature_size * sizeof(float);
    FORERUN_TRY(session.feature_store.reserve(sequences * waiting, bytes, "features"));
    FORERUN_TRY(session.feature_slots.reserve(sequences * waiting, sizeof(int32_t), "features"));
    FORERUN_TRY(session.work.features.reserve(waiting, bytes, "features"));
  }
  for (uint64_t s = 0; s < sequences; ++s) {
    const uint64_t first = s * static_cast<uint64_t>(session.options.capacity);
    Sequence& sequence = session.sequences()[s];
    sequence.rows = session.row_records.as<Row>() + first;
    sequence.hidden = session.hidden_store.as<float>() + first * hidden_size;
    sequence.filled = session.filled_bits.as<uint64_t>() + first * words;
    sequence.pending = session.pending_slots.as<int32_t>() + first;
    if (feature_size == 0) continue;
    sequence.features = session.feature_store.as<float>() + s * waiting * feature_size;
    sequence.feature_slots = session.feature_slots.as<int32_t>() + s * waiting;
  }
  return FORERUN_OK;
}

Status reserve_call(Session& session) {
  const forerun_program& program = session.program();
  Workspace& work = session.work;
  const uint64_t rows = program.max_rows;
  const uint64_t slots =
      static_cast<uint64_t>(session.options.sequences) * static_cast<uint64_t>(session.options.capacity);
  work.gather_stride = static_cast<int64_t>(round_up(program.max_gather + 1, 16));
  FORERUN_TRY(work.rows.reserve(rows, sizeof(PassRow), "the rows of a call"));
  FORERUN_TRY(work.carried.reserve(slots, sizeof(PassRow), "the rows of a call"));
  for (Region* region : {&work.where, &work.starts, &work.token_ids, &work.positions, &work.sequences,
                         &work.slots, &work.gather_start}) {
    FORERUN_TRY(region->reserve(rows, sizeof(int32_t), "the rows of a call"));
  }
  FORERUN_TRY(work.canonical.reserve(session.full_depth(), sizeof(int32_t), "the steps of a call"));
  for (int32_t i = 0; i < session.full_depth(); ++i) work.canonical.as<int32_t>()[i] = i;
  return work.gather.reserve(rows, work.gather_stride * sizeof(int32_t), "the rows of a call");
}

Status reserve_numbers(Session& session) {
  const forerun_program& program = session.program();
  Workspace& work = session.work;
  const uint64_t rows = program.max_rows;
  const uint64_t row_bytes = static_cast<uint64_t>(program.hidden_size) * sizeof(float);
  FORERUN_TRY(work.hidden.reserve(rows, row_bytes, "hidden states"));
  FORERUN_TRY(work.head_hidden.reserve(rows, row_bytes, "hidden states"));
  FORERUN_TRY(work.taps.reserve(rows * static_cast<uint64_t>(program.layers), row_bytes, "hidden states"));
  FORERUN_TRY(work.logits.reserve(rows, program.vocabulary_size * sizeof(float), "logits"));
  const uint64_t blocks = session.head_blocks();
  FORERUN_TRY(work.maxima.reserve(rows, blocks * sizeof(float), "maxima of logits"));
  FORERUN_TRY(work.items.reserve(blocks, sizeof(int32_t), "maxima of logits"));
  FORERUN_TRY(work.block_logits.reserve(blocks, FORERUN_HEAD_BLOCK * sizeof(float), "logits"));
  FORERUN_TRY(work.ranks.reserve(2, program.vocabulary_size * sizeof(uint64_t), "sampling"));
  FORERUN_TRY(work.arena.reserve(1, program.arena_bytes, "activations"));
  uint64_t per_thread = 0;
  const bool wraps = __builtin_mul_overflow(program.scratch_bytes_per_position,
                                            static_cast<uint64_t>(session.cache.capacity()), &per_thread) ||
                     __builtin_add_overflow(per_thread, program.scratch_bytes + kAlignment, &per_thread) ||
                     per_thread > (uint64_t{1} << 40);
  if (wraps)
    return fail(FORERUN_PROGRAM, "the compiled program asks for more scratch memory than there can be");
  work.scratch_stride = static_cast<int64_t>(round_up(per_thread - kAlignment, kAlignment));
  return work.scratch.reserve(session.options.threads, work.scratch_stride, "scratch of the threads");
}

// The team to run on: that of another session, or one that is yet to start.
Status choose_team(Session* session) {
  forerun_session_options& options = session->options;
  if (options.team_of == nullptr) {
    if (options.threads == 0) options.threads = session->program().device != nullptr ? 1 : default_threads();
    FORERUN_TRY(check_option("threads", options.threads, kMaxThreads));
    session->team = new (std::nothrow) Team;
    return session->team != nullptr ? FORERUN_OK : fail(FORERUN_OUT_OF_MEMORY, "no memory for a team");
  }
  Team* const shared = options.team_of->team;
  if (options.threads != 0 && options.threads != shared->threads()) {
    return fail(FORERUN_INVALID_ARGUMENT, "threads is %d, but the team to share has %d; leave threads 0",
                options.threads, shared->threads());
  }
  options.threads = shared->threads();
  shared->hold();
  session->team = shared;
  return FORERUN_OK;
}

Status open_device(Session* session) {
  session->device.reset(new (std::nothrow) DeviceSession);
  if (!session->device) return fail(FORERUN_OUT_OF_MEMORY, "no memory for a device's session");
  FORERUN_TRY(session->device->reserve(session));
  session->cache.set_remote(session->device.get());
  return FORERUN_OK;
}

}  // namespace

Session::~Session() {
  device.reset();  // before the bundle, whose device it runs on
  if (team != nullptr) team->release();
  if (bundle != nullptr) bundle->release();
}

Status Session::create(Bundle* opened, const forerun_session_options& wanted) {
  opened->hold();
  bundle = opened;
  options = wanted;
  if (options.sequences == 0) options.sequences = 1;
  if (options.capacity == 0) options.capacity = program().context_length;
  FORERUN_TRY(check_option("sequences", options.sequences, kMaxSequences));
  FORERUN_TRY(check_option("capacity", options.capacity, kMaxCapacity));
  FORERUN_TRY(choose_team(this));
  FORERUN_TRY(cache.reserve(program(), options.sequences, options.capacity));
  FORERUN_TRY(reserve_rows(*this));
  FORERUN_TRY(reserve_call(*this));
  FORERUN_TRY(reserve_numbers(*this));
  if (program().device != nullptr) FORERUN_TRY(open_device(this));
  const bool shared = options.team_of != nullptr;
  options.team_of = nullptr;  // the other session may go first
  return shared ? FORERUN_OK : team->start(options.threads);
}

}  // namespace forerun
