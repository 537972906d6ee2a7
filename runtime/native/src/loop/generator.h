// What the answers of one session share: the planner, the drafts of the bundle, and the answers themselves.
#ifndef FORERUN_LOOP_GENERATOR_H
#define FORERUN_LOOP_GENERATOR_H

#include <atomic>
#include <memory>

#include "answer.h"
#include "draft_network.h"
#include "planner.h"

namespace forerun {

struct Generator {
  Generator() = default;
  Generator(const Generator&) = delete;
  Generator& operator=(const Generator&) = delete;

  Status create(Session* used);

  // What the manifest lists under this name, nullptr if there is none.
  const ListedDraft* find_draft(const char* name) const;

  // Opens a draft, once.
  Status open_draft(const char* name, DraftNetwork** network);

  // Measures what calls cost, unless that is known.
  Status know_costs(int32_t sequence, int32_t token_id);
  Status tune(int32_t sequence, forerun_costs* costs);
  Status set_costs(const forerun_costs& costs);
  const forerun_costs& measured() const { return measured_; }  // count 0: not measured and not given

  // Begins an answer in a sequence; see answer.h.
  Status start(int32_t sequence, const int32_t* prompt, int32_t count, const forerun_generation& wanted);

  // The answer that was started last in a sequence, nullptr if there was none.
  Answer* answer_in(int32_t sequence) const;
  Status find(int32_t sequence, Answer** answer) const;

  Session* session = nullptr;
  Planner planner;
  std::unique_ptr<Offers> offers;  // of the tree that grows

 private:
  // Cancelling may come from any thread, also while the first answer of a sequence begins.
  struct Place {
    std::atomic<Answer*> answer{nullptr};
    ~Place() { delete answer.load(std::memory_order_relaxed); }
  };

  std::unique_ptr<std::unique_ptr<DraftNetwork>[]> networks_;  // by place in the manifest
  std::unique_ptr<Place[]> answers_;                           // by sequence
  forerun_costs measured_{};
};

}  // namespace forerun

// The opaque type of the C interface.
struct forerun_generator : forerun::Generator {};

#endif
