// One answer in one sequence, by the loop: propose → stage → forward → accept → commit → observe, one verify
// call after the other. runtime/generate.py is the definition.
#ifndef FORERUN_LOOP_ANSWER_H
#define FORERUN_LOOP_ANSWER_H

#include <atomic>
#include <memory>
#include <string>

#include "drafter.h"
#include "exits.h"
#include "verify.h"

namespace forerun {

class Answer {
 public:
  Answer(Generator* generator, int32_t sequence);
  Answer(const Answer&) = delete;
  Answer& operator=(const Answer&) = delete;

  // Reserves what every answer needs.
  Status reserve();

  // Begins; what the sequence holds of the prompt is kept, everything after that dropped.
  Status start(const int32_t* prompt, int32_t count, const forerun_generation& wanted);

  // One step: a piece of the prompt, or a verify call. Writes the tokens that were drawn, none after a piece
  // that does not end the prompt.
  Status next(int32_t* token_ids, int32_t* count);

  // Keeps the first `count` of the tokens that the last step drew.
  Status keep(int32_t count);

  void cancel() { cancelled_.store(true, std::memory_order_relaxed); }
  forerun_finish finish() const { return finish_; }
  void end(forerun_finish reason) { finish_ = reason; }
  int32_t remaining() const { return remaining_; }
  bool is_end(int32_t token_id) const;
  const forerun_statistics& statistics() const { return statistics_; }
  // By layer, how many kept tokens left after it.
  const int64_t* exits() const { return exits_.as<int64_t>(); }

 private:
  static constexpr int32_t kMostEnds = 16;

  Status check_wanted(const forerun_generation& wanted) const;
  Status check_prompt(const int32_t* prompt, int32_t count) const;
  Status choose_drafter(const char* text, const char* shape);
  void rewind_to_shared(const int32_t* prompt, int32_t count);
  Status prefill(int32_t* token_ids, int32_t* count);
  Status decode(int32_t* token_ids, int32_t* count);
  Status propose();
  Status accept();
  Status commit(int32_t count);
  void record(int32_t count);
  Status give_up(Status status);

  Generator* const generator_;
  Session& session_;
  const int32_t sequence_;

  std::unique_ptr<Drafter> drafter_;
  std::string drafter_spec_, shape_spec_;
  ExitPolicy exit_policy_;
  Verifier verifier_;

  Region text_;  // int32 [capacity + kMostRows]: the prompt and what was kept
  int32_t count_ = 0;
  Region prompt_rows_;  // forerun_row [M]
  Region prompt_path_;  // int32 [M]
  forerun_sampling sampling_{};
  int32_t remaining_ = 0;
  int32_t ends_[kMostEnds];
  int32_t end_count_ = 0;
  bool started_ = false;
  bool in_prompt_ = false;
  bool waits_for_keep_ = false;
  forerun_finish finish_ = FORERUN_FINISH_NONE;
  std::atomic<bool> cancelled_{false};

  // The last verify call.
  Draft draft_;
  int32_t path_[kMostRows];
  int32_t drawn_[kMostRows];
  int32_t drawn_count_ = 0;
  uint64_t accepted_ns_ = 0;  // when accepting its tokens began

  forerun_statistics statistics_{};
  Region exits_;  // int64 [L]
};

}  // namespace forerun

#endif
