#include "sequence.h"

#include <algorithm>
#include <cstring>

#include "session.h"

namespace forerun {
namespace {

// The parent of new row `i` as an index of the staged rows, -1 for the last committed position.
int32_t parent_index(const Sequence& sequence, const NewRows& rows, int32_t i) {
  return rows.parents != nullptr ? rows.parents[i] : sequence.staged + i - 1;
}

// Fills in the record of a new row; a call that fails leaves it unused.
Status make_row(const Session& session, Sequence& sequence, const NewRows& rows, int32_t i) {
  const int32_t index = sequence.staged + i;
  const int32_t parent = parent_index(sequence, rows, i);
  if (parent < -1 || parent >= index) {
    return fail(FORERUN_INVALID_ARGUMENT, "row %d has parent %d; it must be -1 or an earlier staged row",
                index, parent);
  }
  if (rows.token_ids != nullptr &&
      (rows.token_ids[i] < 0 || rows.token_ids[i] >= session.program().vocabulary_size)) {
    return fail(FORERUN_INVALID_ARGUMENT, "token id %d is outside the vocabulary of %d", rows.token_ids[i],
                session.program().vocabulary_size);
  }
  const int32_t slot = sequence.committed + index;
  Row row{};
  row.token = rows.token_ids != nullptr ? rows.token_ids[i] : -1;
  row.parent = sequence.committed + parent;
  const Row* above = row.parent >= 0 ? &sequence.rows[row.parent] : nullptr;
  row.position = above != nullptr ? above->position + 1 : 0;
  row.start = row.done = rows.start;
  row.features = -1;
  row.floor = above != nullptr && above->floor > row.start ? above->floor : row.start;
  row.tainted = above != nullptr && (above->inexact || above->tainted);
  if (row.position >= session.program().context_length) {
    return fail(FORERUN_CONTEXT_FULL, "position %d is beyond the model's context length of %d", row.position,
                session.program().context_length);
  }
  const bool gathers = above != nullptr && above->gather_start <= above->position;
  row.gather_start = gathers ? above->gather_start : row.position + (slot == row.position ? 1 : 0);
  if (row.position + 1 - row.gather_start > session.program().max_gather) {
    return fail(FORERUN_INVALID_ARGUMENT,
                "row %d ends a branch of more than %d rows, the most this program allows", index,
                session.program().max_gather);
  }
  sequence.rows[slot] = row;
  return FORERUN_OK;
}

// Whether a row still waits to be embedded with the features in an entry.
bool holds_features(const Sequence& sequence, int32_t entry) {
  const int32_t slot = sequence.feature_slots[entry];
  return slot < sequence.committed + sequence.staged && sequence.rows[slot].features == entry;
}

// What the program's rows are made of, and what was given instead.
Status check_inputs(const Session& session, const NewRows& rows) {
  const int32_t feature_size = session.program().feature_size;
  if (rows.hidden != nullptr) return FORERUN_OK;
  if (!has_embed(session.program())) {
    return fail(FORERUN_INVALID_ARGUMENT,
                "this program embeds no tokens: its rows are hidden states, to be staged as such");
  }
  if (feature_size > 0 && rows.features == nullptr) {
    return fail(FORERUN_INVALID_ARGUMENT,
                "each token of this program comes with %d features; stage tokens with their features",
                feature_size);
  }
  if (feature_size == 0 && rows.features != nullptr) {
    return fail(FORERUN_INVALID_ARGUMENT, "this program's tokens have no features; stage tokens alone");
  }
  return FORERUN_OK;
}

Status check_room(const Session& session, const Sequence& sequence, int32_t count) {
  const int32_t most = session.program().max_rows;
  int32_t waiting = 0;
  for (int32_t entry = 0; entry < most; ++entry) waiting += holds_features(sequence, entry) ? 1 : 0;
  if (count <= most - waiting) return FORERUN_OK;
  return fail(FORERUN_INVALID_ARGUMENT,
              "%d rows with features wait to be computed; %d more are more than the %d that may wait: run "
              "forward first",
              waiting, count, most);
}

// Keeps the features of new rows, whose records are filled in.
void keep_features(const Session& session, Sequence& sequence, const NewRows& rows) {
  const int64_t size = session.program().feature_size;
  int32_t entry = 0;
  for (int32_t i = 0; i < rows.count; ++i, ++entry) {
    while (holds_features(sequence, entry)) ++entry;
    const int32_t slot = sequence.committed + sequence.staged + i;
    std::memcpy(sequence.features + entry * size, rows.features + i * size, size * sizeof(float));
    sequence.feature_slots[entry] = slot;
    sequence.rows[slot].features = entry;
  }
}

// The features of committed rows that wait to be embedded.
void copy_features(const Session& session, const Sequence& source, Sequence& sink) {
  const int64_t size = session.program().feature_size;
  for (int32_t i = 0; i < source.pending_count; ++i) {
    const int32_t slot = source.pending[i], entry = source.rows[slot].features;
    if (entry < 0) continue;
    std::memcpy(sink.features + entry * size, source.features + entry * size, size * sizeof(float));
    sink.feature_slots[entry] = slot;
  }
}

// A ring has room for so many staged rows beside the window of the oldest pending one.
Status check_ring(const Session& session, int32_t staged) {
  for (int32_t l = 0; l < session.program().layers; ++l) {
    const forerun_layer& layer = session.program().layer[l];
    const int32_t most = (layer.ring - layer.window) / 2;
    if (layer.window == 0 || staged <= most) continue;
    return fail(FORERUN_INVALID_ARGUMENT,
                "%d rows would be staged; layers that see a window of %d positions allow %d: commit first",
                staged, layer.window, most);
  }
  return FORERUN_OK;
}

// Whether every layer still has what the row at `position` sees.
bool sees_all(const Session& session, const Sequence& sequence, int32_t position) {
  for (int32_t l = 0; l < session.program().layers; ++l) {
    const int32_t oldest = oldest_kept(session, sequence, l);
    if (oldest > 0 && position - session.program().layer[l].window + 1 < oldest) return false;
  }
  return true;
}

// Refuses to compute anew what was not given by its token alone.
Status check_tokens(const Session& session, const Sequence& sequence, int32_t length) {
  for (int32_t slot = 0; slot < length; ++slot) {
    if (sequence.rows[slot].token >= 0 && session.program().feature_size == 0) continue;
    return fail(
        FORERUN_NOT_COMPUTED,
        "cannot rewind to length %d: layers with a window no longer hold what rows there see, and row %d was "
        "not given by its token alone, so that it could be computed again; rewind to 0",
        length, slot);
  }
  return FORERUN_OK;
}

// Makes rows 0 … length - 1 pending from the start.
void begin_again(Sequence& sequence, int32_t length) {
  for (int32_t slot = 0; slot < length; ++slot) {
    sequence.rows[slot].done = 0;
    sequence.pending[slot] = slot;
  }
  sequence.pending_count = sequence.reach = length;
}

Status check_path(const Sequence& sequence, int32_t count, const int32_t* path) {
  int32_t parent = sequence.committed - 1;
  for (int32_t i = 0; i < count; ++i) {
    if (path[i] < 0 || path[i] >= sequence.staged) {
      return fail(FORERUN_INVALID_ARGUMENT, "row %d is not staged; there are %d staged rows", path[i],
                  sequence.staged);
    }
    const int32_t slot = sequence.committed + path[i];
    const Row& row = sequence.rows[slot];
    if (row.parent != parent) {
      return fail(FORERUN_INVALID_ARGUMENT, "row %d of the path is not a child of the row before it",
                  path[i]);
    }
    if (row.inexact) {
      return fail(
          FORERUN_INEXACT_ROW,
          "row %d did not pass the model's sublayers in order, so it cannot be committed; drop it and "
          "stage its token again",
          path[i]);
    }
    parent = slot;
  }
  return FORERUN_OK;
}

// Brings the row to its final slot with everything that is kept of it.
void move_row(Session& session, int32_t number, int32_t from, int32_t to) {
  Sequence& sequence = session.sequences()[number];
  const int64_t hidden_size = session.program().hidden_size;
  const Row row = sequence.rows[from];
  if (from != to) {
    session.cache.move_row(number, from, to, (row.start + 1) / 2, (row.done + 1) / 2);
    if (row.done < session.full_depth() && (row.done > 0 || row.token < 0)) {
      std::memcpy(sequence.hidden + to * hidden_size, sequence.hidden + from * hidden_size,
                  hidden_size * sizeof(float));
    }
  }
  if (row.features >= 0) sequence.feature_slots[row.features] = to;
  sequence.rows[to] = row;
  sequence.rows[to].parent = to - 1;
  sequence.rows[to].gather_start = to + 1;
  if (row.done < session.full_depth()) sequence.pending[sequence.pending_count++] = to;
}

}  // namespace

Status find_sequence(Session& session, int32_t number, Sequence** sequence) {
  if (number < 0 || number >= session.options.sequences || !session.sequences()[number].used) {
    return fail(FORERUN_INVALID_ARGUMENT, "there is no sequence %d in this session", number);
  }
  *sequence = &session.sequences()[number];
  return FORERUN_OK;
}

Status create_sequence(Session& session, int32_t* number) {
  for (int32_t s = 0; s < session.options.sequences; ++s) {
    Sequence& sequence = session.sequences()[s];
    if (sequence.used) continue;
    sequence.used = true;
    sequence.committed = sequence.staged = sequence.pending_count = sequence.reach = 0;
    *number = s;
    return FORERUN_OK;
  }
  return fail(FORERUN_NO_SEQUENCE,
              "all %d sequences of the session are in use; release one or create the session with more",
              session.options.sequences);
}

Status fork_sequence(Session& session, int32_t number, int32_t* fork) {
  Sequence* source = nullptr;
  FORERUN_TRY(find_sequence(session, number, &source));
  FORERUN_TRY(create_sequence(session, fork));
  Sequence& sink = session.sequences()[*fork];
  const int64_t hidden_size = session.program().hidden_size;
  sink.committed = source->committed;
  sink.pending_count = source->pending_count;
  sink.reach = source->reach;
  std::memcpy(sink.rows, source->rows, source->committed * sizeof(Row));
  std::memcpy(sink.pending, source->pending, source->pending_count * sizeof(int32_t));
  for (int32_t i = 0; i < source->pending_count; ++i) {
    const int64_t at = source->pending[i] * hidden_size;
    std::memcpy(sink.hidden + at, source->hidden + at, hidden_size * sizeof(float));
  }
  copy_features(session, *source, sink);
  session.cache.copy_rows(number, *fork, source->committed);
  return FORERUN_OK;
}

Status stage_rows(Session& session, Sequence& sequence, const NewRows& rows) {
  const int32_t capacity = session.options.capacity;
  if (rows.count < 1)
    return fail(FORERUN_INVALID_ARGUMENT, "%d rows to stage; there must be at least 1", rows.count);
  if (rows.count > capacity - sequence.committed - sequence.staged) {
    return fail(
        FORERUN_CONTEXT_FULL,
        "the context is full: %d positions are committed and %d rows staged, %d more do not fit the capacity "
        "of %d",
        sequence.committed, sequence.staged, rows.count, capacity);
  }
  if (rows.start < 0 || rows.start >= session.full_depth()) {
    return fail(FORERUN_INVALID_ARGUMENT, "sublayer %d does not exist; the model has %d", rows.start,
                session.full_depth());
  }
  FORERUN_TRY(check_inputs(session, rows));
  FORERUN_TRY(check_ring(session, sequence.staged + rows.count));
  if (rows.features != nullptr) FORERUN_TRY(check_room(session, sequence, rows.count));
  for (int32_t i = 0; i < rows.count; ++i) FORERUN_TRY(make_row(session, sequence, rows, i));
  if (rows.features != nullptr) keep_features(session, sequence, rows);
  if (rows.hidden != nullptr) {
    const int64_t hidden_size = session.program().hidden_size;
    std::memcpy(sequence.hidden + (sequence.committed + sequence.staged) * hidden_size, rows.hidden,
                rows.count * hidden_size * sizeof(float));
  }
  sequence.staged += rows.count;
  sequence.reach = std::max(sequence.reach, sequence.committed + sequence.staged);
  return FORERUN_OK;
}

Status commit_path(Session& session, int32_t number, int32_t count, const int32_t* path) {
  Sequence* sequence = nullptr;
  FORERUN_TRY(find_sequence(session, number, &sequence));
  FORERUN_TRY(check_path(*sequence, count, path));
  const int32_t first = sequence->committed;
  // A path ascends, so a row's final slot is never one that a later row still has to be read from.
  for (int32_t i = 0; i < count; ++i) move_row(session, number, first + path[i], first + i);
  sequence->committed += count;
  sequence->staged = 0;
  return FORERUN_OK;
}

Status rewind_sequence(const Session& session, Sequence& sequence, int32_t length) {
  if (length < 0 || length > sequence.committed) {
    return fail(FORERUN_INVALID_ARGUMENT, "cannot rewind to length %d; the sequence has %d positions", length,
                sequence.committed);
  }
  const bool waits = sequence.pending_count > 0 && sequence.pending[0] < length;
  const bool keeps = length == 0 || sees_all(session, sequence, waits ? sequence.pending[0] : length);
  if (!keeps) FORERUN_TRY(check_tokens(session, sequence, length));
  sequence.committed = length;
  sequence.staged = 0;
  while (sequence.pending_count > 0 && sequence.pending[sequence.pending_count - 1] >= length) {
    --sequence.pending_count;
  }
  if (!keeps) begin_again(sequence, length);
  if (length == 0) sequence.reach = 0;
  return FORERUN_OK;
}

int32_t oldest_kept(const Session& session, const Sequence& sequence, int32_t layer) {
  const int32_t ring = session.program().layer[layer].ring;
  return ring > 0 ? std::max(sequence.reach - ring, 0) : 0;
}

bool is_filled(const Session& session, const Sequence& sequence, int32_t slot, int32_t layer) {
  const Row& row = sequence.rows[slot];
  if (!row.inexact) return 2 * layer >= row.start && 2 * layer < row.done;
  const uint64_t* words = sequence.filled + static_cast<int64_t>(slot) * session.filled_words();
  return (words[layer / 64] >> (layer % 64)) & 1;
}

void spread_taint(Sequence& sequence) {
  for (int32_t slot = sequence.committed; slot < sequence.committed + sequence.staged; ++slot) {
    const int32_t parent = sequence.rows[slot].parent;
    if (parent < sequence.committed) continue;
    if (sequence.rows[parent].inexact || sequence.rows[parent].tainted) sequence.rows[slot].tainted = true;
  }
}

void drop_finished(const Session& session, Sequence& sequence) {
  int32_t kept = 0;
  for (int32_t i = 0; i < sequence.pending_count; ++i) {
    const int32_t slot = sequence.pending[i];
    if (sequence.rows[slot].done < session.full_depth()) sequence.pending[kept++] = slot;
  }
  sequence.pending_count = kept;
}

}  // namespace forerun
