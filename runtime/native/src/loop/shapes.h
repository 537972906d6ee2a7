// Draft shapes by their specs; runtime/shapes is the definition.
#ifndef FORERUN_LOOP_SHAPES_H
#define FORERUN_LOOP_SHAPES_H

#include <memory>

#include "growth.h"
#include "spec.h"

namespace forerun {

// One token after another.
class Chain : public Shape {
 public:
  explicit Chain(int32_t tokens) : tokens_(tokens) {}
  int32_t depth() const override { return tokens_; }
  int32_t width(int32_t) const override { return 1; }
  int32_t select(int32_t level, Offers* offers, const Tree& tree, int32_t* expanded) override;

 private:
  int32_t tokens_;
};

// The shape that a spec describes.
Status make_shape(const char* text, std::unique_ptr<Shape>* shape);

// Memory for a part of the loop was refused.
Status no_memory(const char* what);

}  // namespace forerun

#endif
