// Drawing a token from all logits. runtime/sample.py is the definition; this gives the same token.

#include <algorithm>

#include "sampling.h"
#include "session.h"

namespace forerun {
namespace {

// Sorts ranks that ascend by id already, through their upper halves: three stable passes of 11 bits.
// Returns where the result lies, `ranks` or `spare`.
uint64_t* radix_sort(uint64_t* ranks, uint64_t* spare, int32_t count) {
  constexpr int kBits = 11, kBuckets = 1 << kBits;
  for (int shift = 32; shift < 64; shift += kBits) {
    int32_t begin[kBuckets] = {0};
    for (int32_t i = 0; i < count; ++i) ++begin[(ranks[i] >> shift) & (kBuckets - 1)];
    int32_t total = 0;
    for (int32_t& bucket : begin) {
      const int32_t size = bucket;
      bucket = total;
      total += size;
    }
    for (int32_t i = 0; i < count; ++i) spare[begin[(ranks[i] >> shift) & (kBuckets - 1)]++] = ranks[i];
    std::swap(ranks, spare);
  }
  return ranks;
}

// Brings those that top_k keeps into rank order; returns how many, and in *ranks where they lie.
int32_t keep_top(int32_t count, int32_t top_k, uint64_t** ranks, uint64_t* spare) {
  if (top_k == 0 || top_k >= count) {
    *ranks = radix_sort(*ranks, spare, count);
    return count;
  }
  std::nth_element(*ranks, *ranks + top_k, *ranks + count);
  std::sort(*ranks, *ranks + top_k);
  return top_k;
}

// How many of the kept ids make up at least top_p of their softmax mass; summed in rank order, in double.
int32_t cut_mass(const uint64_t* ranks, int32_t kept, double temperature, double top_p) {
  const double largest = logit_of(ranks[0]);
  const auto mass = [&](int32_t i) {
    return std::exp((static_cast<double>(logit_of(ranks[i])) - largest) / temperature);
  };
  double total = 0;
  for (int32_t i = 0; i < kept; ++i) total += mass(i);
  const double wanted = top_p * total;
  double reached = 0;
  for (int32_t i = 0; i < kept; ++i) {
    reached += mass(i);
    if (reached >= wanted) return i + 1;
  }
  return kept;
}

}  // namespace

// Runs once a token over the whole vocabulary, hence in lanes that the compiler turns into vectors; the first
// id that holds the maximum is found afterwards.
int32_t find_largest(const float* logits, int32_t count) {
  constexpr int32_t kLanes = 32;
  float largest[kLanes];
  int32_t broken[kLanes] = {0};
  std::fill_n(largest, kLanes, -std::numeric_limits<float>::infinity());
  int32_t id = 0;
  for (; id + kLanes <= count; id += kLanes) {
    for (int32_t lane = 0; lane < kLanes; ++lane) {
      const float value = logits[id + lane];
      largest[lane] = value > largest[lane] ? value : largest[lane];
      broken[lane] |= value != value;
    }
  }
  for (; id < count; ++id) {
    largest[0] = logits[id] > largest[0] ? logits[id] : largest[0];
    broken[0] |= logits[id] != logits[id];
  }
  if (std::find(broken, broken + kLanes, 1) != broken + kLanes) return -1;
  const float maximum = *std::max_element(largest, largest + kLanes);
  return static_cast<int32_t>(std::find(logits, logits + count, maximum) - logits);
}

Status check_sampling(const forerun_sampling& sampling) {
  if (!(sampling.temperature >= 0) || std::isinf(sampling.temperature)) {
    return fail(FORERUN_INVALID_ARGUMENT, "temperature is %g; it must be a number of 0 (greedy) or more",
                sampling.temperature);
  }
  if (sampling.top_k < 0) {
    return fail(FORERUN_INVALID_ARGUMENT, "top_k is %d; it must be 0 (all tokens) or more", sampling.top_k);
  }
  if (sampling.temperature > 0 && !(sampling.top_p > 0 && sampling.top_p <= 1)) {
    return fail(FORERUN_INVALID_ARGUMENT, "top_p is %g; it must be above 0 and at most 1 (all tokens)",
                sampling.top_p);
  }
  return FORERUN_OK;
}

Status not_a_number() {
  return fail(FORERUN_NOT_A_NUMBER, "the logits hold NaN: the model or its weights are broken");
}

Kept keep(uint64_t* ranks, uint64_t* spare, int32_t count, const forerun_sampling& sampling) {
  int32_t kept = keep_top(count, sampling.top_k, &ranks, spare);
  if (sampling.top_p < 1) kept = cut_mass(ranks, kept, sampling.temperature, sampling.top_p);
  return {ranks, kept};
}

int32_t draw_filtered(uint64_t* ranks, uint64_t* spare, int32_t count, const forerun_sampling& sampling,
                      int64_t position) {
  const Kept kept = keep(ranks, spare, count, sampling);
  const uint64_t key = noise_key(sampling.seed, position);
  Draw draw;
  for (int32_t i = 0; i < kept.count; ++i) {
    offer_noisy(&draw, logit_of(kept.ranks[i]), id_of(kept.ranks[i]), sampling.temperature, key);
  }
  return draw.token_id;
}

Status sample(Session& session, const float* logits, const forerun_sampling& sampling, int64_t position,
              int32_t* token_id) {
  const int32_t count = session.program().vocabulary_size;
  FORERUN_TRY(check_sampling(sampling));
  const int32_t largest = find_largest(logits, count);
  if (largest < 0) return not_a_number();
  *token_id = largest;
  if (sampling.temperature == 0) return FORERUN_OK;
  if (sampling.top_k > 0 || sampling.top_p < 1) {
    uint64_t* ranks = session.work.ranks.as<uint64_t>();
    for (int32_t id = 0; id < count; ++id) ranks[id] = rank_of(logits[id], id);
    *token_id = draw_filtered(ranks, ranks + count, count, sampling, position);
    return FORERUN_OK;
  }
  const uint64_t key = noise_key(sampling.seed, position);
  Draw draw;
  // A good first score lets most others be skipped.
  offer_noisy(&draw, logits[largest], largest, sampling.temperature, key);
  for (int32_t id = 0; id < count; ++id) offer_noisy(&draw, logits[id], id, sampling.temperature, key);
  *token_id = draw.token_id;
  return FORERUN_OK;
}

}  // namespace forerun
