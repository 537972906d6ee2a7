#include "answer.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "../clock.h"
#include "../sampling.h"
#include "calls.h"
#include "generator.h"
#include "make_drafter.h"

namespace forerun {
namespace {

constexpr int32_t kMany = 256;  // a top_k above this touches so many blocks that computing all costs less

// Whether few logits decide the draw. top_p on its own needs the sum over all.
bool looks_at_few(const forerun_sampling& sampling) {
  return sampling.temperature == 0 || (sampling.top_k > 0 && sampling.top_k <= kMany) ||
         (sampling.top_k == 0 && sampling.top_p == 1);
}

double ms_since(uint64_t begin_ns) {
  return static_cast<double>(now_ns() - begin_ns) * 1e-6;
}

}  // namespace

Status offer_children(const Context& context, const forerun_draft_logits& logits, double threshold,
                      const Tree& tree, int32_t row, int32_t width, Offers* offers) {
  forerun_choice choices[FORERUN_MOST_CHOICES];
  int32_t found = 0;
  const int64_t position = int64_t{context.count} + tree.depths[row];
  FORERUN_TRY(rank(*context.session, logits, *context.sampling, position, width, choices, &found));
  for (int32_t i = 0; i < found; ++i) {
    const int32_t index = choices[i].index;
    if (!(choices[i].probability >= threshold)) continue;
    const int32_t token_id = logits.token_ids != nullptr ? logits.token_ids[index] : index;
    offers->add(row, token_id, i, choices[i].probability);
  }
  return FORERUN_OK;
}

// ---- an answer begins ----

Answer::Answer(Generator* generator, int32_t sequence)
    : generator_(generator), session_(*generator->session), sequence_(sequence) {}

Status Answer::reserve() {
  const forerun_program& program = session_.program();
  const uint64_t tokens = int64_t{session_.options.capacity} + kMostRows;
  FORERUN_TRY(text_.reserve(tokens, sizeof(int32_t), "the text of an answer"));
  FORERUN_TRY(prompt_rows_.reserve(program.max_rows, sizeof(forerun_row), "the rows of a call"));
  FORERUN_TRY(prompt_path_.reserve(program.max_rows, sizeof(int32_t), "the rows of a call"));
  return exits_.reserve(program.layers, sizeof(int64_t), "statistics");
}

Status Answer::start(const int32_t* prompt, int32_t count, const forerun_generation& wanted) {
  Sequence& target = session_.sequences()[sequence_];
  started_ = false;
  FORERUN_TRY(check_prompt(prompt, count));
  FORERUN_TRY(check_wanted(wanted));
  FORERUN_TRY(exit_policy_.make(wanted.exit != nullptr ? wanted.exit : "never", session_.program().layers));
  FORERUN_TRY(verifier_.begin(session_, &exit_policy_));
  FORERUN_TRY(choose_drafter(wanted.drafter != nullptr ? wanted.drafter : "auto", wanted.shape));
  std::copy_n(prompt, count, text_.as<int32_t>());
  count_ = count;
  rewind_to_shared(prompt, count);
  FORERUN_TRY(drafter_->begin({generator_, sequence_, prompt, count}));
  sampling_ = wanted.sampling;
  remaining_ = wanted.max_tokens;
  end_count_ = wanted.end_token_count;
  std::copy_n(wanted.end_token_ids, end_count_, ends_);
  in_prompt_ = true;
  waits_for_keep_ = false;
  cancelled_.store(false, std::memory_order_relaxed);
  finish_ = remaining_ == 0 ? FORERUN_FINISH_LENGTH : FORERUN_FINISH_NONE;
  statistics_ = {};
  if (remaining_ > 0) {
    statistics_.prompt_tokens = count;
    statistics_.cached_tokens = target.committed;
  }
  std::fill_n(exits_.as<int64_t>(), session_.program().layers, 0);
  started_ = true;
  return FORERUN_OK;
}

Status Answer::check_wanted(const forerun_generation& wanted) const {
  FORERUN_TRY(check_sampling(wanted.sampling));
  if (wanted.max_tokens < 0) {
    return fail(FORERUN_INVALID_ARGUMENT, "max_tokens is %d; it must be 0 or more", wanted.max_tokens);
  }
  const int32_t ends = wanted.end_token_count;
  if (ends >= 0 && ends <= kMostEnds && (ends == 0 || wanted.end_token_ids != nullptr)) return FORERUN_OK;
  return fail(FORERUN_INVALID_ARGUMENT, "%d end tokens; there may be 0 to %d", ends, kMostEnds);
}

bool Answer::is_end(int32_t token_id) const {
  return std::find(ends_, ends_ + end_count_, token_id) != ends_ + end_count_;
}

Status Answer::check_prompt(const int32_t* prompt, int32_t count) const {
  if (count < 1) return fail(FORERUN_INVALID_ARGUMENT, "the prompt is empty; it needs at least one token");
  if (count > session_.options.capacity) {
    return fail(
        FORERUN_CONTEXT_FULL,
        "the prompt has %d tokens, the context holds %d; shorten the prompt or create the session with "
        "a larger capacity",
        count, session_.options.capacity);
  }
  for (int32_t i = 0; i < count; ++i) {
    if (prompt[i] >= 0 && prompt[i] < session_.program().vocabulary_size) continue;
    return fail(FORERUN_INVALID_ARGUMENT, "token id %d is not in the vocabulary (0 to %d)", prompt[i],
                session_.program().vocabulary_size - 1);
  }
  return FORERUN_OK;
}

// A drafter keeps its memory from one answer to the next.
Status Answer::choose_drafter(const char* text, const char* shape) {
  const char* const shape_text = shape != nullptr ? shape : "";
  if (drafter_ && drafter_spec_ == text && shape_spec_ == shape_text) return FORERUN_OK;
  std::unique_ptr<Drafter> made;
  FORERUN_TRY(make_drafter(text, shape, &made));
  drafter_ = std::move(made);
  drafter_spec_ = text;
  shape_spec_ = shape_text;
  return FORERUN_OK;
}

// The last row of a prompt is run in any case: its logits draw the first token.
void Answer::rewind_to_shared(const int32_t* prompt, int32_t count) {
  Sequence& target = session_.sequences()[sequence_];
  int32_t shared = 0;
  const int32_t most = std::min(target.committed, count - 1);
  while (shared < most && target.rows[shared].token == prompt[shared]) ++shared;
  rewind_sequence(session_, target, shared);
}

// ---- steps ----

Status Answer::next(int32_t* token_ids, int32_t* count) {
  *count = 0;
  if (!started_) return fail(FORERUN_INVALID_ARGUMENT, "no answer is under way; start one");
  if (finish_ != FORERUN_FINISH_NONE) return FORERUN_OK;
  if (waits_for_keep_) {
    return fail(FORERUN_INVALID_ARGUMENT, "the last step's tokens were neither kept nor dropped yet");
  }
  if (cancelled_.load(std::memory_order_relaxed)) {
    finish_ = FORERUN_FINISH_CANCELLED;
    return FORERUN_OK;
  }
  if (!in_prompt_ && committed_length(session_, sequence_) >= session_.options.capacity) {
    finish_ = FORERUN_FINISH_CONTEXT_FULL;
    return FORERUN_OK;
  }
  const Status status = in_prompt_ ? prefill(token_ids, count) : decode(token_ids, count);
  return status == FORERUN_OK ? FORERUN_OK : give_up(status);
}

// After a failure in the middle of a step nothing stays staged, and the answer is over.
Status Answer::give_up(Status status) {
  started_ = false;
  Sequence& target = session_.sequences()[sequence_];
  rewind_sequence(session_, target, target.committed);
  return status;
}

// Runs and commits the next rows of the prompt; draws the first token after the last.
Status Answer::prefill(int32_t* token_ids, int32_t* count) {
  const uint64_t begin_ns = now_ns();
  Sequence& target = session_.sequences()[sequence_];
  const int32_t start = target.committed;
  const int32_t rows = std::min(count_ - start, session_.program().max_rows);
  const bool last = start + rows == count_;
  const int32_t* const piece = text_.as<int32_t>() + start;
  const LayerList taps = drafter_->taps();
  FORERUN_TRY(stage_rows(session_, target, {rows, piece, nullptr, nullptr, nullptr, 0}));
  forerun_row* const listed = prompt_rows_.as<forerun_row>();
  int32_t* const path = prompt_path_.as<int32_t>();
  for (int32_t i = 0; i < rows; ++i) {
    listed[i] = {sequence_, i};
    path[i] = i;
  }
  const int32_t last_row = rows - 1;
  const bool draws = looks_at_few(sampling_);
  const forerun_request request = {listed,       rows,        nullptr,    FORERUN_ALL,   &last_row,
                                   last ? 1 : 0, taps.layers, taps.count, draws ? 1 : 0, &sampling_};
  forerun_result result;
  FORERUN_TRY(forward(session_, request, &result));
  if (last && draws) FORERUN_TRY(draw(session_, 0, sampling_, count_, drawn_));
  if (last && !draws) FORERUN_TRY(sample(session_, result.logits, sampling_, count_, drawn_));
  FORERUN_TRY(commit_path(session_, sequence_, rows, path));
  const Taps states = {taps.count, taps.layers, rows, session_.program().hidden_size, result.taps, nullptr};
  FORERUN_TRY(drafter_->observe({piece, rows, start, nullptr, nullptr, states}));
  if (last) {
    in_prompt_ = false;
    waits_for_keep_ = true;
    drawn_count_ = *count = 1;
    token_ids[0] = drawn_[0];
    draft_.tree.count = 0;  // the first token comes from no verify call
  }
  statistics_.prefill_ms += ms_since(begin_ns);
  return FORERUN_OK;
}

// One verify call: from the last drawn token to the tokens that follow it.
Status Answer::decode(int32_t* token_ids, int32_t* count) {
  const uint64_t begin_ns = now_ns();
  FORERUN_TRY(propose());
  statistics_.draft_ms += ms_since(begin_ns);
  const uint64_t proposed_ns = now_ns();
  const LayerList taps = drafter_->taps();
  FORERUN_TRY(
      verifier_.run(session_, sequence_, draft_, taps, looks_at_few(sampling_) ? &sampling_ : nullptr));
  statistics_.verify_ms += ms_since(proposed_ns);
  accepted_ns_ = now_ns();
  FORERUN_TRY(accept());
  waits_for_keep_ = true;
  *count = drawn_count_;
  std::copy_n(drawn_, drawn_count_, token_ids);
  return FORERUN_OK;
}

// Asks the drafter for a tree that fits the cache and the tokens that may still come.
Status Answer::propose() {
  const forerun_program& program = session_.program();
  const int32_t room = session_.options.capacity - committed_length(session_, sequence_);
  const LayerList points = exit_policy_.points();
  Context context;
  context.session = &session_;
  context.sequence = sequence_;
  context.token_ids = text_.as<int32_t>();
  context.count = count_;
  // Every call draws one token beyond the drafted ones it keeps. A branch counts the root, too.
  context.limits = {std::min({kMostRows, program.max_rows, room}),
                    std::min(remaining_, program.max_gather) - 1};
  context.reusable_sublayers = points.count > 0 ? 2 * (points.layers[0] + 1) : session_.full_depth();
  context.sampling = &sampling_;
  context.offers = generator_->offers.get();
  draft_.staged = draft_.done = 0;
  draft_.origin = FORERUN_ORIGIN_OTHER;
  return drafter_->propose(context, &draft_);
}

// Draws as plain decoding would and follows the draft as long as it guessed the draw.
Status Answer::accept() {
  drawn_count_ = 0;
  for (int32_t row = 0; row >= 0;) {
    int32_t token_id = 0;
    FORERUN_TRY(verifier_.draw_after(session_, row, sampling_, int64_t{count_} + drawn_count_, &token_id));
    path_[drawn_count_] = row;
    drawn_[drawn_count_++] = token_id;
    row = draft_.tree.child(row, token_id);
  }
  return FORERUN_OK;
}

Status Answer::keep(int32_t count) {
  if (!waits_for_keep_ || count < 1 || count > drawn_count_) {
    return fail(FORERUN_INVALID_ARGUMENT, "%d tokens to keep; the last step drew %d that wait for it", count,
                waits_for_keep_ ? drawn_count_ : 0);
  }
  waits_for_keep_ = false;
  if (draft_.tree.count > 0) {
    const Status status = commit(count);
    if (status != FORERUN_OK) return give_up(status);
  }
  std::copy_n(drawn_, count, text_.as<int32_t>() + count_);
  count_ += count;
  remaining_ -= count;
  statistics_.generated_tokens += count;
  return FORERUN_OK;
}

// Keeps the rows that drew the first `count` tokens; the last of these tokens is the next root.
Status Answer::commit(int32_t count) {
  const int32_t start = committed_length(session_, sequence_);
  FORERUN_TRY(commit_path(session_, sequence_, count, path_));
  record(count);
  int32_t committed[kMostRows];
  for (int32_t i = 0; i < count; ++i) committed[i] = draft_.tree.token_ids[path_[i]];
  const Taps taps = verifier_.taps_of(path_, count);
  FORERUN_TRY(drafter_->observe({committed, count, start, &draft_, path_, taps}));
  statistics_.commit_ms += ms_since(accepted_ns_);
  return FORERUN_OK;
}

void Answer::record(int32_t count) {
  const Tree& tree = draft_.tree;
  forerun_origin_counts& origin = statistics_.origins[draft_.origin];
  origin.calls += 1;
  origin.drafted += tree.count - 1;
  origin.accepted += count - 1;
  statistics_.verify_calls += 1;
  statistics_.drafted += tree.count - 1;
  statistics_.accepted += count - 1;
  for (int32_t row = 1; row < tree.count; ++row) ++statistics_.drafted_at[tree.depths[row] - 1];
  for (int32_t depth = 1; depth < count; ++depth) ++statistics_.accepted_at[depth - 1];
  for (int32_t i = 0; i < count; ++i) {
    const int32_t layer = verifier_.exit_layer(path_[i]);
    if (layer >= 0) ++exits_.as<int64_t>()[layer];
  }
}

}  // namespace forerun
