// A thread of a team, and what threads wait on: by pthreads in thread.cpp; in wasm/thread.cpp by workers that
// the app has started.
#ifndef FORERUN_THREAD_H
#define FORERUN_THREAD_H

#if !defined(__wasm__)
#include <pthread.h>
#endif

#include <atomic>
#include <cstdint>

namespace forerun {

// A number that threads wait on: they spin for a while, then sleep. Spinning makes the short waits between
// kernels cheap; sleeping keeps a team that has fewer processors than threads moving.
class Signal {
 public:
  Signal() = default;
  Signal(const Signal&) = delete;
  Signal& operator=(const Signal&) = delete;
  ~Signal();

  uint32_t value() const { return value_.load(std::memory_order_acquire); }

  // Sets the next value and wakes whoever sleeps.
  void advance();

  // Returns once the value differs from `old`; true if spinning up to `spins` times was enough.
  bool wait(uint32_t old, int32_t spins);

 private:
  alignas(64) std::atomic<uint32_t> value_{0};
  alignas(64) std::atomic<int32_t> sleepers_{0};
#if !defined(__wasm__)
  pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t changed_ = PTHREAD_COND_INITIALIZER;
#endif
};

class Thread {
 public:
  // Runs function(argument) on a thread of its own. Returns 0, or the errno that says why there is none.
  int start(void* (*function)(void*), void* argument);

  // Returns once the function has. For threads that were started.
  void join();

 private:
#if defined(__wasm__)
  int32_t helper_ = 0;
#else
  pthread_t thread_{};
#endif
};

}  // namespace forerun

#endif
