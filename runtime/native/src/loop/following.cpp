#include "following.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "calls.h"
#include "generator.h"

namespace forerun {
namespace {

// A row that left the model early has no states further up: zeros. Infinities become the largest numbers.
void make_finite(float* values, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    if (std::isfinite(values[i])) continue;
    constexpr float kLargest = std::numeric_limits<float>::max();
    values[i] = std::isnan(values[i]) ? 0.0f : values[i] > 0 ? kLargest : -kLargest;
  }
}

int32_t common_prefix(const int32_t* first, int32_t first_count, const int32_t* second,
                      int32_t second_count) {
  const int32_t most = std::min(first_count, second_count);
  return static_cast<int32_t>(std::mismatch(first, first + most, second).first - first);
}

}  // namespace

Status Following::begin(DraftNetwork* network, const Beginning& beginning, int32_t lag, int64_t width) {
  if (width_ == 0) {
    const uint64_t bytes = static_cast<uint64_t>(width) * sizeof(float);
    FORERUN_TRY(incoming_.reserve(kRemembered + 1, bytes, "a draft's rows"));
    FORERUN_TRY(states_.reserve(kRemembered, bytes, "a draft's rows"));
    FORERUN_TRY(ordered_.reserve(kRemembered, bytes, "a draft's rows"));
    FORERUN_TRY(last_.reserve(1, bytes, "a draft's rows"));
  }
  network_ = network;
  sequence_ = beginning.sequence;
  lag_ = lag;
  width_ = width;
  most_ = std::min(kRemembered, network->session().program().max_rows);
  miss();
  const int32_t cached = committed_length(*beginning.generator->session, sequence_);
  Followed& followed = network->followed(sequence_);
  const int32_t shared =
      common_prefix(followed.token_ids, followed.count, beginning.token_ids, beginning.count);
  int32_t kept = 0;
  while (kept < followed.rows && followed.positions[kept] + lag < shared &&
         followed.positions[kept] < cached) {
    ++kept;
  }
  followed.rows = kept;
  followed.count = cached;
  std::copy_n(beginning.token_ids, cached, followed.token_ids);
  return rewind_sequence(network->session(), network->session().sequences()[sequence_], kept);
}

void Following::add(const Observation& observation) {
  const int32_t count = observation.count, start = observation.start;
  Followed& followed = network_->followed(sequence_);
  // Rows that were missed: what they held does not matter to later ones.
  while (followed.count < start) followed.token_ids[followed.count++] = -1;
  std::copy_n(observation.token_ids, count, followed.token_ids + start);
  followed.count = start + count;
  const int32_t first = count - wanted(count);
  make_finite(state(0), wanted(count) * width_);
  if (lag_ == 0) {
    for (int32_t i = first; i < count; ++i) wait(start + i, observation.token_ids[i], state(i - first));
    return;
  }
  if (unpaired_) wait(unpaired_position_, observation.token_ids[0], last_.as<float>());
  for (int32_t i = first; i + 1 < count; ++i) {
    wait(start + i, observation.token_ids[i + 1], state(i - first));
  }
  std::memcpy(last_.as<float>(), state(count - 1 - first), static_cast<size_t>(width_) * sizeof(float));
  unpaired_position_ = start + count - 1;
  unpaired_ = true;
}

void Following::wait(int32_t position, int32_t token_id, const float* state) {
  if (waiting_ == most_) {
    first_ = (first_ + 1) % most_;
    --waiting_;
  }
  const int32_t place = (first_ + waiting_++) % most_;
  ring_[place] = {position, token_id};
  std::memcpy(states_.as<float>() + place * width_, state, static_cast<size_t>(width_) * sizeof(float));
}

Status Following::stage(int32_t root, int32_t* count) {
  if (unpaired_) {
    wait(unpaired_position_, root, last_.as<float>());
    unpaired_ = false;
  }
  return stage_waiting(count);
}

Status Following::stage_waiting(int32_t* count) {
  *count = waiting_;
  if (waiting_ == 0) return FORERUN_OK;
  float* const ordered = ordered_.as<float>();
  int32_t draft_ids[kRemembered];
  for (int32_t i = 0; i < waiting_; ++i) {
    const int32_t place = (first_ + i) % most_;
    std::memcpy(ordered + i * width_, states_.as<float>() + place * width_,
                static_cast<size_t>(width_) * sizeof(float));
    draft_ids[i] = network_->draft_id(ring_[place].token_id);
  }
  Session& session = network_->session();
  const NewRows rows = lag_ == 0 ? NewRows{waiting_, nullptr, nullptr, ordered, nullptr, 0}
                                 : NewRows{waiting_, draft_ids, ordered, nullptr, nullptr, 0};
  return stage_rows(session, session.sequences()[sequence_], rows);
}

Status Following::keep(int32_t count) {
  int32_t path[kRemembered] = {};
  for (int32_t i = 0; i < count; ++i) path[i] = i;
  FORERUN_TRY(commit_path(network_->session(), sequence_, count, path));
  Followed& followed = network_->followed(sequence_);
  for (int32_t i = 0; i < count; ++i) {
    followed.positions[followed.rows++] = ring_[(first_ + i) % most_].position;
  }
  waiting_ = 0;
  return FORERUN_OK;
}

Status Following::catch_up() {
  int32_t count = 0;
  FORERUN_TRY(stage_waiting(&count));
  if (count == 0) return FORERUN_OK;
  const Rows listed(sequence_, 0, count);
  const forerun_request request = {listed.rows, count,   nullptr, FORERUN_ALL, nullptr,
                                   0,           nullptr, 0,       0,           nullptr};
  forerun_result result;
  FORERUN_TRY(forward(network_->session(), request, &result));
  return keep(count);
}

}  // namespace forerun
