// What a drafter is to the loop. runtime/protocol.py is the definition.
#ifndef FORERUN_LOOP_DRAFTER_H
#define FORERUN_LOOP_DRAFTER_H

#include "../session.h"
#include "growth.h"

namespace forerun {

struct Generator;

// An answer that begins: `count` tokens of the prompt, of which the sequence holds the first rows already.
struct Beginning {
  Generator* generator;
  int32_t sequence;
  const int32_t* token_ids;
  int32_t count;
};

// What a drafter sees before each verify call. The last token is the root of the next tree, which is not in
// the cache yet. A drafter may leave rows staged for the verify call to continue, but not past
// `reusable_sublayers`: an exit policy has to see them before.
struct Context {
  Session* session;
  int32_t sequence;
  const int32_t* token_ids;
  int32_t count;
  Limits limits;
  int32_t reusable_sublayers;
  const forerun_sampling* sampling;
  Offers* offers;  // to grow trees with

  int32_t root() const { return token_ids[count - 1]; }
  bool has_room() const { return limits.depth >= 1 && limits.rows >= 2; }
};

// A drafter's proposal. Its first `staged` rows are staged in the session and have passed `done` sublayers.
struct Draft {
  Tree tree;
  int32_t staged = 0;
  int32_t done = 0;
  int32_t origin = 0;  // an entry of forerun_origin
};

// Hidden states of the rows of a call, [layers, rows, D]; NaN for a row that left the stack earlier.
struct Taps {
  int32_t count = 0;
  const int32_t* layers = nullptr;
  int32_t rows = 0;
  int64_t width = 0;
  const float* data = nullptr;
  const int32_t* places = nullptr;  // observed row → row of the call; nullptr: its own number

  const float* row(int32_t tap, int32_t observed) const {
    const int32_t place = places != nullptr ? places[observed] : observed;
    return data + (static_cast<int64_t>(tap) * rows + place) * width;
  }
  // Place of a layer among the taps, -1 if it is none.
  int32_t find(int32_t layer) const {
    for (int32_t i = 0; i < count; ++i) {
      if (layers[i] == layer) return i;
    }
    return -1;
  }
};

// Rows that were committed: a piece of the prompt (`draft` nullptr) or the accepted path of a verify call.
// They hold `token_ids` at positions `start`, `start` + 1 …
struct Observation {
  const int32_t* token_ids;
  int32_t count;
  int32_t start;
  const Draft* draft;
  const int32_t* path;
  Taps taps;
};

struct LayerList {
  int32_t count = 0;
  const int32_t* layers = nullptr;
};

// Anything that proposes tokens.
class Drafter {
 public:
  virtual ~Drafter() = default;

  // An answer starts: forget the last. All memory for it is reserved here.
  virtual Status begin(const Beginning& beginning) = 0;

  // Layers whose hidden states `observe` wants.
  virtual LayerList taps() const { return {}; }

  // A tree below the root, within the limits.
  virtual Status propose(const Context& context, Draft* draft) = 0;

  // Called for every piece of the prompt and after every verify call.
  virtual Status observe(const Observation&) { return FORERUN_OK; }
};

// Offers the best children of a row by a draft's logits, with the noise that the loop will draw with.
Status offer_children(const Context& context, const forerun_draft_logits& logits, double threshold,
                      const Tree& tree, int32_t row, int32_t width, Offers* offers);

}  // namespace forerun

#endif
