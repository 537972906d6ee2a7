// The parts of drawing a token that sample.cpp (from all logits) and draw.cpp (from those that matter) share.
// runtime/sample.py is the definition.
#ifndef FORERUN_SAMPLING_H
#define FORERUN_SAMPLING_H

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "forerun/forerun.h"
#include "status.h"

namespace forerun {

// The finaliser of splitmix64 (Steele, Lea and Flood, 2014).
inline uint64_t mix(uint64_t value) {
  value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9ull;
  value = (value ^ (value >> 27)) * 0x94D049BB133111EBull;
  return value ^ (value >> 31);
}

// Everything of the noise that does not depend on the token.
inline uint64_t noise_key(uint64_t seed, int64_t position) {
  return mix(mix(seed + 0x9E3779B97F4A7C15ull) ^ (static_cast<uint64_t>(position) * 0xD1B54A32D192ED03ull));
}

inline uint64_t token_noise(uint64_t key, uint32_t token_id) {
  return mix(key ^ (token_id * 0x8CB92BA72F3D8DD7ull));
}

// Standard Gumbel noise. A uniform that rounds to 1 gives infinity, as in the definition.
inline double gumbel(uint64_t noise) {
  const double uniform = (static_cast<double>(noise >> 11) + 0.5) * 0x1p-53;
  return -std::log(-std::log(uniform));
}

// No less than gumbel(noise): -log(-log(u)) ≤ -log(1 - u), and 1 - u ≥ 2^-(leading ones + 1); one more power
// of two covers all rounding. Saves two logarithms for nearly every token.
inline double gumbel_bound(uint64_t noise) {
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

inline void offer_noisy(Draw* draw, float logit, int32_t id, double temperature, uint64_t key) {
  const double scaled = static_cast<double>(logit) / temperature;
  const uint64_t noise = token_noise(key, static_cast<uint32_t>(id));
  if (draw->token_id >= 0 && scaled + gumbel_bound(noise) < draw->score) return;
  draw->offer(id, scaled + gumbel(noise));
}

// Orders ids by logit descending, then id ascending, as one unsigned number ascending.
inline uint64_t rank_of(float logit, int32_t id) {
  const float value = logit + 0.0f;  // -0 ranks as 0
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const uint32_t ascending = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return (static_cast<uint64_t>(~ascending) << 32) | static_cast<uint32_t>(id);
}

inline int32_t id_of(uint64_t rank) {
  return static_cast<int32_t>(rank & 0xFFFFFFFFu);
}

// The logit that a rank was made of (0 for -0).
inline float logit_of(uint64_t rank) {
  const uint32_t ascending = ~static_cast<uint32_t>(rank >> 32);
  const uint32_t bits = ascending & 0x80000000u ? ascending ^ 0x80000000u : ~ascending;
  float logit;
  std::memcpy(&logit, &bits, sizeof logit);
  return logit;
}

// FORERUN_OK, or the error for settings out of range.
Status check_sampling(const forerun_sampling& sampling);

// The error for a model whose logits are not numbers.
Status not_a_number();

// Where the largest logit is, ties to the lower id; -1 if any is NaN.
int32_t find_largest(const float* logits, int32_t count);

// Those that top_k and top_p keep, in rank order.
struct Kept {
  const uint64_t* ranks;
  int32_t count;
};

// Keeps them of `count` candidates, given as ranks in order of id; both arrays have room for `count` and are
// overwritten. The result lies in one of them.
Kept keep(uint64_t* ranks, uint64_t* spare, int32_t count, const forerun_sampling& sampling);

// Draws among `count` candidates, given as ranks in order of id, which hold all that top_k keeps. Both arrays
// have room for `count` and are overwritten.
int32_t draw_filtered(uint64_t* ranks, uint64_t* spare, int32_t count, const forerun_sampling& sampling,
                      int64_t position);

}  // namespace forerun

#endif
