#include "exits.h"

#include <algorithm>
#include <cmath>

namespace forerun {

Status ExitPolicy::make(const char* text, int32_t layers) {
  Spec spec;
  FORERUN_TRY(spec.parse("exit policy", text));
  points_.count = 0;
  if (spec.is("never")) return spec.finish();
  if (!spec.is("confidence")) return spec.unknown_name("never, confidence");
  threshold_ = 0.9;
  FORERUN_TRY(spec.take("layers", &points_));
  FORERUN_TRY(spec.take("threshold", &threshold_));
  FORERUN_TRY(spec.finish());
  if (!(threshold_ >= 0)) {
    return fail(FORERUN_INVALID_ARGUMENT, "exit policy 'confidence': threshold is %g; it must be 0 or more",
                threshold_);
  }
  if (points_.count == 0) points_ = {1, {std::max(2 * layers / 3 - 1, 0)}};
  return check_points(layers);
}

Status ExitPolicy::check_points(int32_t layers) {
  const int32_t last = layers - 2;
  bool sound = points_.values[0] >= 0 && points_.values[points_.count - 1] <= last;
  for (int32_t i = 1; i < points_.count; ++i) sound = sound && points_.values[i] > points_.values[i - 1];
  if (sound) return FORERUN_OK;
  return fail(
      FORERUN_INVALID_ARGUMENT,
      "exit policy 'confidence': layers must ascend and lie between 0 and %d (the model has %d layers)", last,
      layers);
}

bool ExitPolicy::leaves(const float* logits, int32_t count) const {
  const float largest = *std::max_element(logits, logits + count);
  double total = 0;
  for (int32_t i = 0; i < count; ++i) total += std::exp(logits[i] - largest);
  return (std::isfinite(total) ? 1.0 / total : 0.0) > threshold_;
}

}  // namespace forerun
