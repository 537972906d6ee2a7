// The planner as a drafter: lookup and the bundle's draft network, each as far as it pays, or nothing.
// runtime/drafters/auto.py is the definition.
#ifndef FORERUN_LOOP_AUTO_DRAFTER_H
#define FORERUN_LOOP_AUTO_DRAFTER_H

#include "lookup.h"
#include "network_drafters.h"
#include "planner.h"

namespace forerun {

class Auto : public Drafter {
 public:
  static constexpr int32_t kFirstFound = -1;  // the first kind of network that the bundle has
  static constexpr int32_t kNoNetwork = -2;

  // `network` is a number of the planner's networks or one of the above.
  explicit Auto(int32_t network);

  // The number of a network's kind, -3 if there is none of that name.
  static int32_t kind_of(const char* name);

  Status begin(const Beginning& beginning) override;
  LayerList taps() const override;
  Status propose(const Context& context, Draft* draft) override;
  Status observe(const Observation& observation) override;

 private:
  static constexpr int32_t kCopied = 12;  // tokens that lookup may copy at most

  // One proposal: what it was based on, its time in plain calls, and which frequencies its rows count for.
  struct Step {
    bool active = false;
    double rate = 1;
    double doubt = 1;  // the chance that the copy is wrong from its first token on
    double time = 0;
    int32_t levels = 0;  // of a draft for which nothing was copied
    uint64_t proposed_ns = 0;
    Tree drafted;  // everything that was proposed by any means
    Counted counted[kMostRows];
  };

  Status choose_network(const Beginning& beginning);
  void copy(const Context& context, Draft* draft);
  Status ask_network(const Context& context, Draft* draft);
  void count_planned(const Context& context, Tree* tree);

  int32_t wanted_;
  int32_t chosen_ = kNoNetwork;
  std::unique_ptr<NetworkDrafter> networks_[Planner::kNetworks];
  Lookup lookup_;
  Generator* generator_ = nullptr;
  Pace pace_;
  Step step_;
  PlannedShape shape_;
  Draft network_draft_;
};

}  // namespace forerun

#endif
