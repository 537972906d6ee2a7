// Drafters that run a network of the bundle over the text, a forward for each level of a tree.
#ifndef FORERUN_LOOP_NETWORK_DRAFTERS_H
#define FORERUN_LOOP_NETWORK_DRAFTERS_H

#include <memory>

#include "drafter.h"
#include "following.h"

namespace forerun {

// A drafter with a network. Without a shape it drafts a chain of its own choice.
class NetworkDrafter : public Drafter, protected Offering {
 public:
  NetworkDrafter(double threshold, std::unique_ptr<Shape> shape)
      : threshold_(threshold), shape_(std::move(shape)) {}

  // Its name in bundles and specs.
  virtual const char* name() const = 0;

  // Whether it stages rows in the model's session, which no other rows may then precede.
  virtual bool stages_in_model() const { return false; }

  // Drafts in a shape for this call only; `propose` uses its own.
  virtual Status propose_in(Shape* shape, const Context& context, Draft* draft) = 0;

  Status begin(const Beginning& beginning) override;
  LayerList taps() const override;
  Status propose(const Context& context, Draft* draft) override {
    return propose_in(shape_.get(), context, draft);
  }

 protected:
  // Reserves what the drafter needs beside the network; called at every beginning.
  virtual Status prepare(const Beginning& beginning) = 0;

  // Takes over the rows that the model committed, whose states are in place. The end of the prompt is run at
  // once, as the model's own rows are: a first draft is then as quick as the others.
  Status follow(Following* following, const Observation& observation);

  // Offers children for rows with draft logits [count, V].
  Status offer_from(const float* logits, const Tree& tree, const int32_t* rows, int32_t count, int32_t width,
                    Offers* offers);

  DraftNetwork* network_ = nullptr;
  int32_t sequence_ = 0;
  int32_t prompt_tokens_ = 0;
  double threshold_;
  std::unique_ptr<Shape> shape_;
  const Context* context_ = nullptr;  // while a tree grows
};

// A small decoder over the model's hidden states and the next token. Rows of committed text hold the model's
// states; a drafted row holds what the network itself put out one row before.
class FeatureDrafter : public NetworkDrafter {
 public:
  using NetworkDrafter::NetworkDrafter;
  const char* name() const override { return "feature"; }
  Status propose_in(Shape* shape, const Context& context, Draft* draft) override;
  Status observe(const Observation& observation) override;

 private:
  Status prepare(const Beginning& beginning) override;
  Status offer(const Tree& tree, const int32_t* rows, int32_t count, int32_t width, Offers* offers) override;
  Status run_root(int32_t root, const float** logits);
  Status run_level(const Tree& tree, const int32_t* rows, int32_t count, const float** logits);

  Following following_;
  Region outputs_;             // float [kMostRows, D], by row of the tree
  Region features_;            // float [kMostRows, F], of which only the first D of each are ever set
  int32_t staged_[kMostRows];  // row of the tree → row staged in the network's session
  int32_t staged_count_ = 0;
};

// The model's first layers and a small trained one draft in place of the others; the verify call goes on from
// the rows that the draft ran.
class ExitDrafter : public NetworkDrafter {
 public:
  using NetworkDrafter::NetworkDrafter;
  const char* name() const override { return "exit"; }
  bool stages_in_model() const override { return true; }
  Status propose_in(Shape* shape, const Context& context, Draft* draft) override;
  Status observe(const Observation& observation) override;

 private:
  Status prepare(const Beginning& beginning) override;
  Status offer(const Tree& tree, const int32_t* rows, int32_t count, int32_t width, Offers* offers) override;

  Following following_;
  Expanded expanded_;
  Region steps_;  // int32 [step_count]
  int32_t step_count_ = 0;
};

// Independent heads on the model's last hidden state. None of them sees what the others say, so every row of
// a level is offered the same children.
class HeadsDrafter : public NetworkDrafter {
 public:
  using NetworkDrafter::NetworkDrafter;
  const char* name() const override { return "heads"; }
  Status propose_in(Shape* shape, const Context& context, Draft* draft) override;
  Status observe(const Observation& observation) override;

 private:
  Status prepare(const Beginning& beginning) override;
  Status offer(const Tree& tree, const int32_t* rows, int32_t count, int32_t width, Offers* offers) override;

  Region state_;  // float [D]
  bool has_state_ = false;
  int32_t staged_count_ = 0;
};

}  // namespace forerun

#endif
