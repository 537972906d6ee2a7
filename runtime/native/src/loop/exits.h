// Exit policies: which rows leave the layer stack early. runtime/exits is the definition.
#ifndef FORERUN_LOOP_EXITS_H
#define FORERUN_LOOP_EXITS_H

#include "drafter.h"
#include "spec.h"

namespace forerun {

// Leave after one of some layers when the head there is sure: its top probability is above a threshold.
class ExitPolicy {
 public:
  // The policy that a spec describes, for a model of `layers` layers.
  Status make(const char* text, int32_t layers);

  // Layers after which rows may leave, ascending; none for a policy that lets no row leave.
  LayerList points() const { return {points_.count, points_.values}; }

  // Whether a row with these logits leaves; they are then final.
  bool leaves(const float* logits, int32_t count) const;

 private:
  Status check_points(int32_t layers);

  Numbers points_;
  double threshold_ = 0.9;
};

}  // namespace forerun

#endif
