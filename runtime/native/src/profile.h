// Where the time of one forward goes, thread by thread and kernel by kernel.
#ifndef FORERUN_PROFILE_H
#define FORERUN_PROFILE_H

#include <cstdint>

#include "clock.h"
#include "forerun/program.h"
#include "memory.h"
#include "status.h"

namespace forerun {

// Every thread's time is cut without gaps: from the forward's begin to its end, each stretch between two
// readings of the clock counts for one kernel, for the wait behind one, or for the core.
class Profile {
 public:
  // Reserves all memory; nothing is allocated later.
  Status reserve(const forerun_program& program, int32_t threads);

  // Around a forward, by thread 0 while the team rests.
  void begin();
  void end();

  // What passed since this thread's last reading was the core's: planning, waking, copies.
  void leave_core(int32_t tid);

  // Signature of forerun_call::mark.
  static void mark(void* profile, int32_t tid, int32_t layer, int32_t kernel, int32_t event);

  // Whether a forward has been measured to its end.
  bool complete() const { return complete_; }

  // Nanoseconds of the last forward: ran and waited [threads, layers, kernels], core [threads].
  void read(uint64_t* ran_ns, uint64_t* waited_ns, uint64_t* core_ns) const;

 private:
  struct alignas(64) Thread {
    uint64_t last_ns;  // the latest reading
    uint64_t core_ns;
  };

  Thread& thread(int32_t tid) const { return threads_memory_.as<Thread>()[tid]; }
  uint64_t* sums(int32_t tid) const { return sums_memory_.as<uint64_t>() + tid * stride_; }

  int32_t threads_ = 0;
  int32_t kernels_ = 0;
  int64_t cells_ = 0;      // layers × kernels
  int64_t stride_ = 0;     // of a thread in sums_memory_, whole cache lines
  Region threads_memory_;  // Thread [threads]
  Region sums_memory_;     // uint64 [threads, layers, kernels, 2]: ran, waited
  bool complete_ = false;
};

}  // namespace forerun

#endif
