// What a draft's logits propose: their best tokens under the noise that the draw will use, and how likely
// each is. runtime/sample.py is the definition.

#include <algorithm>

#include "sampling.h"
#include "session.h"

namespace forerun {
namespace {

// How many of the best tokens are compared to say how likely each is.
constexpr int32_t kCompared = 4;
constexpr double kMostExponent = 700;  // e to this is still a number

// e^x for x ≤ 0, to 2e-6 of its value, in steps that the compiler turns into vectors: e^x = 2^whole · e^rest.
inline float exp_of(float x) {
  constexpr float kLog2e = 1.44269504f, kLog2High = 0.693359375f, kLog2Low = -2.12194440e-4f;
  // 1.5 · 2^23: what is added to it is rounded to whole numbers, and its last bits are that number.
  constexpr float kRound = 12582912.0f;
  constexpr uint32_t kRoundBits = 0x4B400000u;
  x = x > -87.0f ? x : -87.0f;
  const float rounded = x * kLog2e + kRound;
  const float whole = rounded - kRound;
  const float rest = (x - whole * kLog2High) - whole * kLog2Low;
  float power = 1.0f / 720;
  power = power * rest + 1.0f / 120;
  power = power * rest + 1.0f / 24;
  power = power * rest + 1.0f / 6;
  power = power * rest + 0.5f;
  power = power * rest + 1.0f;
  power = power * rest + 1.0f;
  uint32_t bits;
  std::memcpy(&bits, &rounded, sizeof bits);
  bits = (bits - kRoundBits + 127u) << 23;
  float scale;
  std::memcpy(&scale, &bits, sizeof scale);
  return power * scale;
}

float sum_of_exp(const float* logits, int32_t count, float largest) {
  constexpr int32_t kPart = 256, kLanes = 16;
  float sums[kLanes] = {0}, part[kPart];
  for (int32_t start = 0; start < count; start += kPart) {
    const int32_t size = std::min(kPart, count - start);
    for (int32_t i = 0; i < size; ++i) part[i] = exp_of(logits[start + i] - largest);
    for (int32_t i = size; i < kPart; ++i) part[i] = 0;
    for (int32_t i = 0; i < kPart; i += kLanes) {
      for (int32_t lane = 0; lane < kLanes; ++lane) sums[lane] += part[i + lane];
    }
  }
  float total = 0;
  for (float sum : sums) total += sum;
  return total;
}

// The best few so far, best first; ties go to the lower token id.
class Best {
 public:
  Best(forerun_choice* choices, int32_t room) : choices_(choices), room_(room) {}

  int32_t count() const { return count_; }
  double score(int32_t place) const { return scores_[place]; }
  // Whether a score may still take a place.
  bool has_room_for(double score) const { return count_ < room_ || score >= scores_[count_ - 1]; }

  void offer(int32_t index, int32_t token_id, double score) {
    int32_t place = count_;
    while (place > 0 && comes_before(score, token_id, place - 1)) --place;
    if (place == room_) return;
    count_ = std::min(count_ + 1, room_);
    for (int32_t i = count_ - 1; i > place; --i) {
      scores_[i] = scores_[i - 1];
      token_ids_[i] = token_ids_[i - 1];
      choices_[i] = choices_[i - 1];
    }
    scores_[place] = score;
    token_ids_[place] = token_id;
    choices_[place].index = index;
  }

 private:
  bool comes_before(double score, int32_t token_id, int32_t place) const {
    return score > scores_[place] || (score == scores_[place] && token_id < token_ids_[place]);
  }

  forerun_choice* choices_;
  int32_t room_;
  int32_t count_ = 0;
  double scores_[FORERUN_MOST_CHOICES];
  int32_t token_ids_[FORERUN_MOST_CHOICES];
};

void offer_noisy(Best* best, float logit, int32_t index, int32_t token_id, double temperature, uint64_t key) {
  const double scaled = static_cast<double>(logit) / temperature;
  const uint64_t noise = token_noise(key, static_cast<uint32_t>(token_id));
  if (!best->has_room_for(scaled + gumbel_bound(noise))) return;
  best->offer(index, token_id, scaled + gumbel(noise));
}

// With the noise known, what decides between the best few is how far apart they are: the softmax of their
// scores, and of the logits that name no token, as what their noise comes to is not known.
void compare_scores(const Best& best, const forerun_draft_logits& logits, double temperature, int32_t count,
                    forerun_choice* choices) {
  const double largest = best.score(0);
  const auto mass = [largest](double score) {
    return score == largest ? 1.0 : std::exp(std::min(score - largest, kMostExponent));
  };
  double total = 0;
  for (int32_t i = 0; i < std::min(best.count(), kCompared); ++i) total += mass(best.score(i));
  for (int32_t i = logits.named; i < logits.count; ++i) total += mass(logits.values[i] / temperature);
  for (int32_t i = 0; i < count; ++i)
    choices[i].probability = static_cast<float>(mass(best.score(i)) / total);
}

}  // namespace

Status rank(Session& session, const forerun_draft_logits& logits, const forerun_sampling& sampling,
            int64_t position, int32_t wanted, forerun_choice* choices, int32_t* found) {
  *found = 0;
  FORERUN_TRY(check_sampling(sampling));
  if (wanted < 1 || wanted > FORERUN_MOST_CHOICES) {
    return fail(FORERUN_INVALID_ARGUMENT, "%d choices; at least 1 and at most %d can be asked for", wanted,
                FORERUN_MOST_CHOICES);
  }
  const int32_t named = logits.named;
  if (named < 1 || named > logits.count || logits.count > session.program().vocabulary_size) {
    return fail(FORERUN_INVALID_ARGUMENT, "%d of %d logits are named; at least 1, of at most %d", named,
                logits.count, session.program().vocabulary_size);
  }
  const float* values = logits.values;
  const int32_t at = find_largest(values, logits.count);
  if (at < 0) return not_a_number();
  const float largest = values[at];
  const auto token_of = [&](int32_t index) { return logits.token_ids ? logits.token_ids[index] : index; };
  forerun_choice found_choices[FORERUN_MOST_CHOICES];
  Best best(found_choices, std::min(std::max(wanted, kCompared), named));
  const double temperature = sampling.temperature;
  if (temperature == 0) {
    for (int32_t i = 0; i < named; ++i) {
      if (best.has_room_for(values[i])) best.offer(i, token_of(i), values[i]);
    }
  } else {
    const uint64_t key = noise_key(sampling.seed, position);
    if (sampling.top_k == 0 && sampling.top_p == 1) {
      for (int32_t i = 0; i < named; ++i) offer_noisy(&best, values[i], i, token_of(i), temperature, key);
    } else {
      uint64_t* ranks = session.work.ranks.as<uint64_t>();
      for (int32_t i = 0; i < named; ++i) ranks[i] = rank_of(values[i], i);
      const Kept kept = keep(ranks, ranks + named, named, sampling);
      for (int32_t i = 0; i < kept.count; ++i) {
        const int32_t index = id_of(kept.ranks[i]);
        offer_noisy(&best, values[index], index, token_of(index), temperature, key);
      }
    }
  }
  *found = std::min(best.count(), wanted);
  std::copy_n(found_choices, *found, choices);
  if (temperature > 0) {
    compare_scores(best, logits, temperature, *found, choices);
    return FORERUN_OK;
  }
  const float total = sum_of_exp(values, logits.count, largest);
  for (int32_t i = 0; i < *found; ++i) {
    choices[i].probability = exp_of(values[choices[i].index] - largest) / total;
  }
  return FORERUN_OK;
}

}  // namespace forerun
