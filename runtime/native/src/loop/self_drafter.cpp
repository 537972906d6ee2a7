#include "self_drafter.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "calls.h"
#include "generator.h"

namespace forerun {

Status SelfDrafter::skip(const char* text) {
  const char* part = text;
  while (*part != 0) {
    const size_t size = std::strcspn(part, "+");
    char* end = nullptr;
    const bool named = size > 1 && (part[0] == 'a' || part[0] == 'f') && part[1] >= '0' && part[1] <= '9';
    const long layer = named ? std::strtol(part + 1, &end, 10) : 0;
    if (size > 0 && (!named || end != part + size || layer > (1 << 20))) {
      return fail(
          FORERUN_INVALID_ARGUMENT,
          "drafter 'self': '%.*s' in skip=%s is no sublayer; write a3 for the attention and f3 for the "
          "feed-forward part of layer 3, joined by +",
          static_cast<int>(std::min<size_t>(size, 32)), part, text);
    }
    if (size > 0 && skipped_count_ == kMostSkipped) {
      return fail(FORERUN_INVALID_ARGUMENT, "drafter 'self': skip names more than %d sublayers",
                  kMostSkipped);
    }
    if (size > 0) skipped_[skipped_count_++] = 2 * static_cast<int32_t>(layer) + (part[0] == 'f');
    part += size + (part[size] == '+');
  }
  return FORERUN_OK;
}

Status SelfDrafter::begin(const Beginning& beginning) {
  const Session& session = *beginning.generator->session;
  const int32_t layers = session.program().layers;
  if (steps_.as<int32_t>() == nullptr) {
    FORERUN_TRY(steps_.reserve(session.full_depth(), sizeof(int32_t), "the steps of a drafter"));
  }
  step_count_ = 0;
  if (skipped_count_ > 0) {
    int32_t* const skipped_end = skipped_ + skipped_count_;
    for (const int32_t* skipped = skipped_; skipped < skipped_end; ++skipped) {
      if (*skipped < session.full_depth()) continue;
      return fail(FORERUN_INVALID_ARGUMENT, "drafter 'self': skip names layer %d; the model has %d layers",
                  *skipped / 2, layers);
    }
    for (int32_t step = 0; step < session.full_depth(); ++step) {
      if (std::find(skipped_, skipped_end, step) == skipped_end) steps_.as<int32_t>()[step_count_++] = step;
    }
    return FORERUN_OK;
  }
  const int32_t wanted = layers_ == kDefaultLayers ? std::max(2 * layers / 3, 1) : layers_;
  if (wanted < 1 || wanted >= std::max(layers, 2)) {
    return fail(FORERUN_INVALID_ARGUMENT,
                "drafter 'self': layers is %d; it must be between 1 and %d (the model has %d layers)", wanted,
                layers - 1, layers);
  }
  while (step_count_ < 2 * wanted) {
    steps_.as<int32_t>()[step_count_] = step_count_;
    ++step_count_;
  }
  return FORERUN_OK;
}

Status SelfDrafter::propose(const Context& context, Draft* draft) {
  draft->tree.start(context.root());
  if (!context.has_room()) return FORERUN_OK;
  context_ = &context;
  expanded_.start();
  FORERUN_TRY(grow(context.root(), shape_.get(), context.limits, this, context.offers, &draft->tree));
  if (skipped_count_ > 0 || step_count_ > context.reusable_sublayers) {
    return commit_path(*context.session, context.sequence, 0, nullptr);
  }
  // The last level was proposed but not run: it is not staged yet.
  expanded_.bring_first(&draft->tree);
  draft->staged = expanded_.count();
  draft->done = step_count_;
  return FORERUN_OK;
}

Status SelfDrafter::offer(const Tree& tree, const int32_t* rows, int32_t count, int32_t width,
                          Offers* offers) {
  Session& session = *context_->session;
  const int32_t first = expanded_.count();
  int32_t parents[kMostRows];
  expanded_.add(tree, rows, count, parents);
  FORERUN_TRY(stage_tree_rows(session, context_->sequence, tree, rows, count, parents));
  const Rows listed(context_->sequence, first, count);
  const forerun_request request = {
      listed.rows, count, steps_.as<int32_t>(), step_count_, nullptr, FORERUN_ALL, nullptr, 0, 0, nullptr};
  forerun_result result;
  FORERUN_TRY(forward(session, request, &result));
  const int32_t size = session.program().vocabulary_size;
  for (int32_t i = 0; i < count; ++i) {
    const forerun_draft_logits logits = {result.logits + int64_t{i} * size, size, size, nullptr};
    FORERUN_TRY(offer_children(*context_, logits, threshold_, tree, rows[i], width, offers));
  }
  return FORERUN_OK;
}

}  // namespace forerun
