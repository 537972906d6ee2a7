// Drawing a token from logits. runtime/sample.py is the definition; this gives the same token.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "session.h"

namespace forerun {
namespace {

// The finaliser of splitmix64 (Steele, Lea and Flood, 2014).
uint64_t mix(uint64_t value) {
  value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9ull;
  value = (value ^ (value >> 27)) * 0x94D049BB133111EBull;
  return value ^ (value >> 31);
}

// Everything of the noise that does not depend on the token.
uint64_t noise_key(uint64_t seed, int64_t position) {
  return mix(mix(seed + 0x9E3779B97F4A7C15ull) ^ (static_cast<uint64_t>(position) * 0xD1B54A32D192ED03ull));
}

uint64_t token_noise(uint64_t key, uint32_t token_id) {
  return mix(key ^ (token_id * 0x8CB92BA72F3D8DD7ull));
}

// Standard Gumbel noise. A uniform that rounds to 1 gives infinity, as in the definition.
double gumbel(uint64_t noise) {
  const double uniform = (static_cast<double>(noise >> 11) + 0.5) * 0x1p-53;
  return -std::log(-std::log(uniform));
}

// No less than gumbel(noise): -log(-log(u)) ≤ -log(1 - u), and 1 - u ≥ 2^-(leading ones + 1); one more power
// of two covers all rounding. Saves two logarithms for nearly every token.
double gumbel_bound(uint64_t noise) {
  constexpr double kLog2 = 0.69314718055994531;
  if (~noise >> 11 == 0) return std::numeric_limits<double>::infinity();
  return static_cast<double>(__builtin_clzll(~noise) + 2) * kLog2;
}

// Best of a draw so far: the highest score, then the lowest id.
struct Draw {
  int32_t token_id = -1;
  double score = 0;

  void offer(int32_t id, double value) {
    if (token_id >= 0 && !(value > score || (value == score && id < token_id))) return;
    token_id = id;
    score = value;
  }
};

void offer_noisy(Draw* draw, const float* logits, int32_t id, double temperature, uint64_t key) {
  const double scaled = static_cast<double>(logits[id]) / temperature;
  const uint64_t noise = token_noise(key, static_cast<uint32_t>(id));
  if (draw->token_id >= 0 && scaled + gumbel_bound(noise) < draw->score) return;
  draw->offer(id, scaled + gumbel(noise));
}

// Orders ids by logit descending, then id ascending, as one unsigned number ascending.
uint64_t rank_of(float logit, int32_t id) {
  const float value = logit + 0.0f;  // -0 ranks as 0
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const uint32_t ascending = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return (static_cast<uint64_t>(~ascending) << 32) | static_cast<uint32_t>(id);
}

int32_t id_of(uint64_t rank) {
  return static_cast<int32_t>(rank & 0xFFFFFFFFu);
}

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

// The first `kept` ids in rank order; sets *ranks to where they lie.
int32_t keep_top(const float* logits, int32_t count, int32_t top_k, uint64_t** ranks, uint64_t* spare) {
  for (int32_t id = 0; id < count; ++id) (*ranks)[id] = rank_of(logits[id], id);
  if (top_k == 0 || top_k >= count) {
    *ranks = radix_sort(*ranks, spare, count);
    return count;
  }
  std::nth_element(*ranks, *ranks + top_k, *ranks + count);
  std::sort(*ranks, *ranks + top_k);
  return top_k;
}

// How many of the kept ids make up at least top_p of their softmax mass; summed in rank order, in double.
int32_t cut_mass(const float* logits, const uint64_t* ranks, int32_t kept, double temperature, double top_p) {
  const double largest = logits[id_of(ranks[0])];
  const auto mass = [&](int32_t i) {
    return std::exp((static_cast<double>(logits[id_of(ranks[i])]) - largest) / temperature);
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

// The largest logit, ties to the lower id; -1 if any is NaN. Runs once a token over the whole vocabulary,
// hence in lanes that the compiler turns into vectors; the first id that holds the maximum is found
// afterwards.
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

}  // namespace

Status sample(Session& session, const float* logits, const forerun_sampling& sampling, int64_t position,
              int32_t* token_id) {
  const int32_t count = session.program().vocabulary_size;
  FORERUN_TRY(check_sampling(sampling));
  const int32_t largest = find_largest(logits, count);
  if (largest < 0) {
    return fail(FORERUN_NOT_A_NUMBER, "the logits hold NaN: the model or its weights are broken");
  }
  *token_id = largest;
  if (sampling.temperature == 0) return FORERUN_OK;

  const uint64_t key = noise_key(sampling.seed, position);
  Draw draw;
  offer_noisy(&draw, logits, largest, sampling.temperature,
              key);  // a good first score lets most others be skipped
  if (sampling.top_k == 0 && sampling.top_p == 1) {
    for (int32_t id = 0; id < count; ++id) offer_noisy(&draw, logits, id, sampling.temperature, key);
  } else {
    uint64_t* ranks = session.work.ranks.as<uint64_t>();
    int32_t kept = keep_top(logits, count, sampling.top_k, &ranks, ranks + count);
    if (sampling.top_p < 1) kept = cut_mass(logits, ranks, kept, sampling.temperature, sampling.top_p);
    for (int32_t i = 0; i < kept; ++i) offer_noisy(&draw, logits, id_of(ranks[i]), sampling.temperature, key);
  }
  *token_id = draw.token_id;
  return FORERUN_OK;
}

}  // namespace forerun
