// A persistent team of threads that run one function together.
#ifndef FORERUN_TEAM_H
#define FORERUN_TEAM_H

#include <atomic>
#include <cstdint>
#include <memory>

#include "status.h"
#include "thread.h"

namespace forerun {

// Threads to use when the user does not say: one per physical core that this process may run on, within its
// share of processor time where a container limits that.
int32_t default_threads();

constexpr int32_t kMaxThreads = 256;

class Team {
 public:
  using Function = void (*)(void* argument, int32_t tid);

  Team() = default;
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;
  ~Team();

  // Starts threads - 1 workers; the caller of `run` is the team's thread 0.
  Status start(int32_t threads);

  int32_t threads() const { return threads_; }

  // Sessions share a team; the last hold to go ends it.
  void hold() { holds_.fetch_add(1, std::memory_order_relaxed); }
  void release();

  // Keeps a second thread out of all sessions that run on the team.
  bool enter() { return !busy_.exchange(true, std::memory_order_acquire); }
  void leave() { busy_.store(false, std::memory_order_release); }

  // Runs function(argument, tid) on every thread and returns when all have finished.
  void run(Function function, void* argument);

  // Runs function(argument, 0) on the calling thread alone, with the float arithmetic of a team.
  static void run_alone(Function function, void* argument);

  // Returns when every thread of the team has called it. Signature of forerun_call::barrier.
  static void barrier(void* team, int32_t tid);

 private:
  struct alignas(64) Member {
    Team* team = nullptr;
    int32_t tid = 0;
    int32_t spins = 0;   // how long this thread spins at a barrier; shrinks while it does not help
    uint32_t waits = 0;  // barriers so far
    Thread thread;
  };

  static void* work(void* member);
  void wait_at_barrier(Member* member);

  int32_t threads_ = 1;
  int32_t started_ = 0;
  std::unique_ptr<Member[]> members_;
  Function function_ = nullptr;
  void* argument_ = nullptr;
  bool stopping_ = false;
  std::atomic<int32_t> holds_{1};
  std::atomic<bool> busy_{false};
  Signal job_;
  Signal phase_;
  alignas(64) std::atomic<int32_t> arrived_{0};
};

}  // namespace forerun

#endif
