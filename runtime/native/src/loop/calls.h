// Calls that several drafters make in the same way.
#ifndef FORERUN_LOOP_CALLS_H
#define FORERUN_LOOP_CALLS_H

#include "../session.h"
#include "tree.h"

namespace forerun {

// Staged rows `first` … `first` + count - 1 of one sequence, as a request lists them.
struct Rows {
  Rows(int32_t sequence, int32_t first, int32_t count) {
    for (int32_t i = 0; i < count; ++i) rows[i] = {sequence, first + i};
  }
  forerun_row rows[kMostRows];
};

// Stages rows of a tree; parents[i] is the staged row above the i-th of them.
inline Status stage_tree_rows(Session& session, int32_t number, const Tree& tree, const int32_t* rows,
                              int32_t count, const int32_t* parents) {
  int32_t token_ids[kMostRows];
  for (int32_t i = 0; i < count; ++i) token_ids[i] = tree.token_ids[rows[i]];
  Sequence* sequence = nullptr;
  FORERUN_TRY(find_sequence(session, number, &sequence));
  return stage_rows(session, *sequence, {count, token_ids, nullptr, nullptr, parents, 0});
}

inline int32_t committed_length(Session& session, int32_t sequence) {
  return session.sequences()[sequence].committed;
}

}  // namespace forerun

#endif
