// The rows of one sequence: committed positions, then staged rows.
#ifndef FORERUN_SEQUENCE_H
#define FORERUN_SEQUENCE_H

#include <cstdint>

#include "status.h"

namespace forerun {

// What is known of the row in one slot. A committed row's slot is its position; a staged row's is the
// committed length plus its index.
struct Row {
  int32_t token;     // -1 for a row given by its hidden state
  int32_t position;  // in the sequence
  int32_t parent;    // slot of the parent, -1 at position 0
  int32_t done;      // sublayers passed in order, `start` included
  int32_t start;     // sublayer at which the row entered: 0 for tokens
  int32_t floor;     // largest `start` of the row and its ancestors: below it someone lacks keys and values
  int32_t gather_start;  // first position of the branch whose slot is not its position; position + 1 if none
  uint32_t listed;       // number of the last forward that listed this row
  uint32_t walked;       // number of the last forward that looked at it as an ancestor
  int32_t features;      // index among the sequence's features, -1 if it has none or they were used
  bool inexact;          // ran something else than the next sublayers in order
  bool tainted;          // an ancestor is inexact: will be inexact as soon as it runs
};

struct Sequence {
  bool used;
  int32_t committed;
  int32_t staged;
  int32_t pending_count;
  int32_t reach;    // slots of rows staged since the cache holds what it does: which a ring still has follows
  uint32_t walked;  // number of the last forward that looked at its pending rows
  Row* rows;        // [capacity], by slot
  float* hidden;    // [capacity, D], by slot; only of rows between their start and full depth
  uint64_t* filled;  // [capacity, words], by slot; which layers hold keys and values of an inexact row
  int32_t* pending;  // [pending_count] committed slots below full depth, ascending
  // Features of rows that wait to be embedded. Entry e belongs to the row in slot feature_slots[e] as long as
  // there is such a row and its `features` is e; nothing has to be done when rows are dropped.
  float* features;         // [max_rows, F]
  int32_t* feature_slots;  // [max_rows]
};

struct Session;

// Rows to stage: token ids, token ids with features, or hidden states that enter at `start`.
struct NewRows {
  int32_t count;
  const int32_t* token_ids;
  const float* features;
  const float* hidden;
  const int32_t* parents;
  int32_t start;
};

// Checks the number and that the sequence is in use.
Status find_sequence(Session& session, int32_t number, Sequence** sequence);

Status create_sequence(Session& session, int32_t* number);
Status fork_sequence(Session& session, int32_t number, int32_t* fork);
Status stage_rows(Session& session, Sequence& sequence, const NewRows& rows);
Status commit_path(Session& session, int32_t number, int32_t count, const int32_t* path);

// Where a ring has lost what the rows up to `length` see, they become pending: the next forward computes them
// anew.
Status rewind_sequence(const Session& session, Sequence& sequence, int32_t length);

// The first slot whose keys and values a layer has not overwritten: 0 without a window.
int32_t oldest_kept(const Session& session, const Sequence& sequence, int32_t layer);

// Whether the layer holds the row's keys and values.
bool is_filled(const Session& session, const Sequence& sequence, int32_t slot, int32_t layer);

// Marks the staged rows below inexact ones.
void spread_taint(Sequence& sequence);

// Forgets the pending rows that have reached full depth.
void drop_finished(const Session& session, Sequence& sequence);

}  // namespace forerun

#endif
