// Drawing a token without all logits: the largest of each block of them says which blocks can matter, and
// only those are computed. The token is the one that sample.cpp draws from all logits: a block is left out
// only where its maximum proves that none of its logits could be drawn.

#include <algorithm>
#include <functional>

#include "sampling.h"
#include "session.h"

namespace forerun {
namespace {

constexpr int32_t kBlock = FORERUN_HEAD_BLOCK;

// One row's maxima, and the blocks of it that were chosen.
class Blocks {
 public:
  Blocks(Session& session, int32_t row)
      : session_(session),
        row_(row),
        count_(session.head_blocks()),
        maxima_(session.work.maxima.as<float>() + static_cast<int64_t>(row) * count_),
        chosen_(session.work.items.as<int32_t>()),
        logits_(session.work.block_logits.as<float>()),
        ahead_count_(blocks_ahead(session, row, &ahead_)) {}

  int32_t count() const { return count_; }
  int32_t size(int32_t block) const {
    return std::min(kBlock, session_.program().vocabulary_size - block * kBlock);
  }
  // The largest logit of the block; infinity if one of them is NaN.
  float maximum(int32_t block) const { return maxima_[block]; }
  // Whether a draw with noise looks at this block first, for a good first score: those that a device brought
  // along, else those that hold the largest logit.
  bool comes_first(int32_t block, float largest) const {
    return ahead_count_ > 0 ? std::binary_search(ahead_, ahead_ + ahead_count_, block)
                            : maxima_[block] == largest;
  }
  float largest() const { return *std::max_element(maxima_, maxima_ + count_); }
  // What the maxima of `k` blocks reach; overwrites `scratch` [count].
  float kth_largest(int32_t k, float* scratch) const {
    std::copy_n(maxima_, count_, scratch);
    std::nth_element(scratch, scratch + k - 1, scratch + count_, std::greater<float>());
    return scratch[k - 1];
  }

  // Computes the blocks that `wanted(block)` chooses, in ascending order.
  template <typename Wanted>
  Status compute(Wanted wanted) {
    computed_ = 0;
    for (int32_t block = 0; block < count_; ++block) {
      if (wanted(block)) chosen_[computed_++] = block;
    }
    return computed_ > 0 ? compute_blocks(session_, row_, computed_) : FORERUN_OK;
  }

  // Calls visit(id, logit) for what was computed, ids ascending; false if one is NaN.
  template <typename Visit>
  bool each(Visit visit) const {
    bool numbers = true;
    for (int32_t i = 0; i < computed_; ++i) {
      const int32_t block = chosen_[i], size = this->size(block);
      for (int32_t lane = 0; lane < size; ++lane) {
        const float logit = logits_[i * kBlock + lane];
        numbers = numbers && logit == logit;
        visit(block * kBlock + lane, logit);
      }
    }
    return numbers;
  }

 private:
  Session& session_;
  int32_t row_;
  int32_t count_;
  const float* maxima_;
  int32_t* chosen_;
  const float* logits_;
  const int32_t* ahead_ = nullptr;
  int32_t ahead_count_;
  int32_t computed_ = 0;
};

Status draw_largest(Blocks* blocks, int32_t* token_id) {
  const float largest = blocks->largest();
  FORERUN_TRY(blocks->compute([&](int32_t block) { return blocks->maximum(block) == largest; }));
  Draw best;
  if (!blocks->each([&](int32_t id, float logit) { best.offer(id, logit); })) return not_a_number();
  *token_id = best.token_id;
  return FORERUN_OK;
}

// Among the top_k largest, or by top_p alone among all.
Status draw_from_top(Session& session, Blocks* blocks, const forerun_sampling& sampling, int64_t position,
                     int32_t* token_id) {
  uint64_t* ranks = session.work.ranks.as<uint64_t>();
  float reached = -std::numeric_limits<float>::infinity();
  if (sampling.top_k > 0 && sampling.top_k < blocks->count()) {
    // As many blocks as tokens are kept have a logit of this at least.
    reached = blocks->kth_largest(sampling.top_k, reinterpret_cast<float*>(ranks));
  }
  FORERUN_TRY(blocks->compute([&](int32_t block) { return blocks->maximum(block) >= reached; }));
  int32_t count = 0;
  if (!blocks->each([&](int32_t id, float logit) { ranks[count++] = rank_of(logit, id); })) {
    return not_a_number();
  }
  *token_id = draw_filtered(ranks, ranks + session.program().vocabulary_size, count, sampling, position);
  return FORERUN_OK;
}

// Whether noise could lift a logit of this block to the best score so far.
bool may_win(const Blocks& blocks, int32_t block, double temperature, uint64_t key, const Draw& best) {
  const double largest = static_cast<double>(blocks.maximum(block)) / temperature;
  const int32_t first = block * kBlock;
  for (int32_t lane = 0; lane < blocks.size(block); ++lane) {
    const uint64_t noise = token_noise(key, static_cast<uint32_t>(first + lane));
    // The cheap bound first: it settles nearly all.
    if (largest + gumbel_bound(noise) < best.score) continue;
    if (!(largest + gumbel(noise) < best.score)) return true;
  }
  return false;
}

Status draw_noisy(Blocks* blocks, const forerun_sampling& sampling, int64_t position, int32_t* token_id) {
  const uint64_t key = noise_key(sampling.seed, position);
  const float largest = blocks->largest();
  Draw best;
  const auto offer = [&](int32_t id, float logit) {
    offer_noisy(&best, logit, id, sampling.temperature, key);
  };
  // A good first score leaves out most others.
  FORERUN_TRY(blocks->compute([&](int32_t block) { return blocks->comes_first(block, largest); }));
  if (!blocks->each(offer)) return not_a_number();
  const Draw first = best;
  FORERUN_TRY(blocks->compute([&](int32_t block) {
    return !blocks->comes_first(block, largest) && may_win(*blocks, block, sampling.temperature, key, first);
  }));
  if (!blocks->each(offer)) return not_a_number();
  *token_id = best.token_id;
  return FORERUN_OK;
}

}  // namespace

Status draw(Session& session, int32_t index, const forerun_sampling& sampling, int64_t position,
            int32_t* token_id) {
  if (index < 0 || index >= session.work.draw_count) {
    return fail(FORERUN_INVALID_ARGUMENT,
                "there is no row %d to draw from; the last forward asked for %d rows with `draws`", index,
                session.work.draw_count);
  }
  FORERUN_TRY(check_sampling(sampling));
  Blocks blocks(session, index);
  if (sampling.temperature == 0) return draw_largest(&blocks, token_id);
  if (sampling.top_k == 0 && sampling.top_p == 1) return draw_noisy(&blocks, sampling, position, token_id);
  return draw_from_top(session, &blocks, sampling, position, token_id);
}

}  // namespace forerun
