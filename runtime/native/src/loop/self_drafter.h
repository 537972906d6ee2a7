// Self-speculation: some of the model's own sublayers draft, all of them verify.
#ifndef FORERUN_LOOP_SELF_DRAFTER_H
#define FORERUN_LOOP_SELF_DRAFTER_H

#include <memory>

#include "drafter.h"

namespace forerun {

constexpr int32_t kDefaultLayers = INT32_MIN;  // the first two thirds of them

struct SelfOptions {
  int32_t layers = kDefaultLayers;
  double threshold = 0;
  const char* skip = "";  // such as a3+f3; only read while the drafter is made
};

class SelfDrafter : public Drafter, private Offering {
 public:
  SelfDrafter(const SelfOptions& options, std::unique_ptr<Shape> shape)
      : layers_(options.layers), threshold_(options.threshold), shape_(std::move(shape)) {}

  // Reads the sublayers to skip.
  Status skip(const char* text);

  Status begin(const Beginning& beginning) override;
  Status propose(const Context& context, Draft* draft) override;

 private:
  static constexpr int32_t kMostSkipped = 256;

  Status offer(const Tree& tree, const int32_t* rows, int32_t count, int32_t width, Offers* offers) override;

  int32_t layers_;
  double threshold_;
  std::unique_ptr<Shape> shape_;
  int32_t skipped_count_ = 0;
  int32_t skipped_[kMostSkipped];  // sublayers
  Region steps_;                   // int32 [2L]
  int32_t step_count_ = 0;
  const Context* context_ = nullptr;  // while a tree grows
  Expanded expanded_;
};

}  // namespace forerun

#endif
