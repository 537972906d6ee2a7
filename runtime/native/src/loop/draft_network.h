// A draft network of the bundle, opened in a session of its own on the team of the model's.
#ifndef FORERUN_LOOP_DRAFT_NETWORK_H
#define FORERUN_LOOP_DRAFT_NETWORK_H

#include "../bundle.h"
#include "../session.h"

namespace forerun {

// What the rows of one sequence of a draft stand for, as the drafter that ran there last left them: the
// model's text and the position of each row in it.
struct Followed {
  int32_t* token_ids;  // [capacity]
  int32_t count;
  int32_t* positions;  // [capacity], one for each row that the draft holds
  int32_t rows;
};

class DraftNetwork {
 public:
  DraftNetwork() = default;
  DraftNetwork(const DraftNetwork&) = delete;
  DraftNetwork& operator=(const DraftNetwork&) = delete;
  ~DraftNetwork();

  // Opens what the manifest of the model's bundle lists; what is drafted for sequence s of the model is kept
  // in sequence s here.
  Status open(Session& model, const ListedDraft& listed);

  const ListedDraft& listed() const { return *listed_; }
  Session& session() const { return *session_; }
  Followed& followed(int32_t sequence) const { return followed_.as<Followed>()[sequence]; }

  // The draft's id of a token of the model; that of all others if it has none of its own.
  int32_t draft_id(int32_t token_id) const { return draft_ids_.as<int32_t>()[token_id]; }

  // A row's logits [V] and the tokens that they speak of.
  forerun_draft_logits logits(const float* values) const { return {values, named_ + 1, named_, token_ids_}; }

 private:
  Status open_session(Session& model);
  Status read_vocabulary(const Session& model);
  Status check_sizes(const Session& model) const;
  Status reserve_followed();

  const ListedDraft* listed_ = nullptr;
  forerun_bundle* bundle_ = nullptr;
  forerun_session* session_ = nullptr;
  MappedFile vocabulary_;
  const int32_t* token_ids_ = nullptr;  // [named]
  int32_t named_ = 0;
  Region draft_ids_;  // int32 [V of the model]
  Region followed_;   // Followed [sequences]
  Region texts_;      // int32 [sequences, 2, capacity]
};

}  // namespace forerun

#endif
