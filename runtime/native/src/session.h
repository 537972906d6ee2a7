// A session: sequences over one bundle, and all the memory that a call needs.
#ifndef FORERUN_SESSION_H
#define FORERUN_SESSION_H

#include <memory>

#include "bundle.h"
#include "device/device_session.h"
#include "kv_cache.h"
#include "memory.h"
#include "profile.h"
#include "sequence.h"
#include "team.h"

namespace forerun {

// A row of a pass through the program.
struct PassRow {
  int32_t sequence;
  int32_t slot;
  int32_t request;  // its index in the request, -1 for a pending ancestor taken along
  int32_t done;     // before the pass
};

// Memory of one call, reserved once. M = max_rows.
struct Workspace {
  Region rows;          // PassRow [M]
  Region carried;       // PassRow [S, capacity]
  Region where;         // int32 [M], request index → row of the pass
  Region starts;        // int32 [M], depth of each row of the pass, ascending
  Region canonical;     // int32 [2L], 0, 1, 2 …
  Region token_ids;     // int32 [M]
  Region features;      // float [M, F]
  Region positions;     // int32 [M]
  Region sequences;     // int32 [M]
  Region slots;         // int32 [M]
  Region gather_start;  // int32 [M]
  Region gather;        // int32 [M, gather_stride]
  Region hidden;        // float [M, D]
  Region head_hidden;   // float [M, D]
  Region logits;        // float [M, V]
  Region maxima;        // float [M, B]: the largest logit of each block
  Region items;         // int32 [B]: blocks to compute
  Region block_logits;  // float [B, FORERUN_HEAD_BLOCK]
  Region taps;          // float [L, M, D]
  Region arena;
  Region scratch;  // [threads, scratch_stride]
  Region ranks;    // uint64 [2, V], for sampling
  // Rows of the last forward that wait to be drawn from: their hidden states, [draw_count, D].
  const float* draw_hidden = nullptr;
  int32_t draw_count = 0;
  int64_t gather_stride = 0;
  int64_t scratch_stride = 0;
};

struct Session {
  Session() = default;
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  ~Session();

  Status create(Bundle* opened, const forerun_session_options& wanted);

  const forerun_program& program() const { return bundle->program(); }
  int32_t full_depth() const { return 2 * program().layers; }
  int32_t head_blocks() const {
    return (program().vocabulary_size + FORERUN_HEAD_BLOCK - 1) / FORERUN_HEAD_BLOCK;
  }
  int32_t filled_words() const { return (program().layers + 63) / 64; }

  Bundle* bundle = nullptr;
  forerun_session_options options{};
  Team* team = nullptr;  // perhaps shared with other sessions
  KvCache cache;
  Workspace work;
  std::unique_ptr<DeviceSession> device;  // where the program is one for a device
  uint32_t call = 0;                 // number of the current forward; marks rows without clearing the marks
  std::unique_ptr<Profile> profile;  // while one is taken

  Region sequence_records;
  Region row_records;
  Region hidden_store;
  Region filled_bits;
  Region pending_slots;
  Region feature_store;
  Region feature_slots;

  Sequence* sequences() const { return sequence_records.as<Sequence>(); }
};

// The call of the C interface: plans passes and runs them.
Status forward(Session& session, const forerun_request& request, forerun_result* result);

// Computes the logits of blocks work.items[0 … count-1] of one row that waits to be drawn from, in
// work.block_logits.
Status compute_blocks(Session& session, int32_t row, int32_t count);

// How many blocks of that row a device has computed along with its maxima, and in *blocks which, ascending.
int32_t blocks_ahead(const Session& session, int32_t row, const int32_t** blocks);

// Draws a token from a row that waits for it; see draw.cpp.
Status draw(Session& session, int32_t index, const forerun_sampling& sampling, int64_t position,
            int32_t* token_id);

// Draws a token; see sample.cpp.
Status sample(Session& session, const float* logits, const forerun_sampling& sampling, int64_t position,
              int32_t* token_id);

// The best of a draft's logits under the noise of the draw at `position`, and their probabilities.
Status rank(Session& session, const forerun_draft_logits& logits, const forerun_sampling& sampling,
            int64_t position, int32_t wanted, forerun_choice* choices, int32_t* found);

}  // namespace forerun

// The opaque type of the C interface.
struct forerun_session : forerun::Session {};

#endif
