#include "team.h"

#include <cstring>
#include <new>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace forerun {
namespace {

// Kernels are tens of microseconds apart, calls hundreds: a pause is 20 to 50 ns.
constexpr int32_t kBarrierSpins = 4000;
constexpr int32_t kJobSpins = 10000;
constexpr int32_t kLeastSpins = 64;
// So that a thread that once gave up spinning finds out when it pays again.
constexpr uint32_t kRetryEvery = 256;

// Results must not depend on which thread computes them, so every thread rounds and treats denormals in the
// same way, whatever the application has set.
class FloatMode {
 public:
#if defined(__x86_64__)
  FloatMode() : saved_(_mm_getcsr()) { _mm_setcsr(0x1F80); }
  ~FloatMode() { _mm_setcsr(saved_); }
#elif defined(__aarch64__)
  FloatMode() {
    __asm__ volatile("mrs %0, fpcr" : "=r"(saved_));
    __asm__ volatile("msr fpcr, %0" ::"r"(uint64_t{0}));
  }
  ~FloatMode() { __asm__ volatile("msr fpcr, %0" ::"r"(saved_)); }
#else
  FloatMode() = default;
#endif
  FloatMode(const FloatMode&) = delete;
  FloatMode& operator=(const FloatMode&) = delete;

 private:
#if defined(__x86_64__)
  unsigned saved_;
#elif defined(__aarch64__)
  uint64_t saved_;
#endif
};

}  // namespace

Team::~Team() {
  stopping_ = true;
  if (started_ > 0) job_.advance();
  for (int32_t i = 0; i < started_; ++i) members_[i + 1].thread.join();
}

void Team::release() {
  if (holds_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
}

Status Team::start(int32_t threads) {
  members_.reset(new (std::nothrow) Member[threads]);
  if (!members_) return fail(FORERUN_OUT_OF_MEMORY, "no memory for %d threads", threads);
  threads_ = threads;
  for (int32_t tid = 0; tid < threads; ++tid) {
    members_[tid].team = this;
    members_[tid].tid = tid;
    members_[tid].spins = kBarrierSpins;
  }
  int error = 0;
  for (int32_t tid = 1; tid < threads && error == 0; ++tid) {
    error = members_[tid].thread.start(work, &members_[tid]);
    if (error == 0) ++started_;
  }
  if (error == 0) return FORERUN_OK;
  return fail(FORERUN_OUT_OF_MEMORY, "cannot start thread %d of %d: %s; use fewer threads", started_ + 2,
              threads, std::strerror(error));
}

void Team::run(Function function, void* argument) {
  const FloatMode mode;
  function_ = function;
  argument_ = argument;
  if (threads_ == 1) {
    function(argument, 0);
    return;
  }
  job_.advance();
  function(argument, 0);
  wait_at_barrier(&members_[0]);
}

void Team::run_alone(Function function, void* argument) {
  const FloatMode mode;
  function(argument, 0);
}

void* Team::work(void* pointer) {
  Member* member = static_cast<Member*>(pointer);
  Team* team = member->team;
  const FloatMode mode;
  uint32_t seen = 0;
  while (true) {
    team->job_.wait(seen, kJobSpins);
    ++seen;
    if (team->stopping_) return nullptr;
    team->function_(team->argument_, member->tid);
    team->wait_at_barrier(member);
  }
}

void Team::barrier(void* pointer, int32_t tid) {
  Team* team = static_cast<Team*>(pointer);
  if (team->threads_ > 1) team->wait_at_barrier(&team->members_[tid]);
}

void Team::wait_at_barrier(Member* member) {
  const uint32_t phase = phase_.value();
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads_) {
    arrived_.store(0, std::memory_order_relaxed);
    phase_.advance();
    return;
  }
  const int32_t spins = ++member->waits % kRetryEvery == 0 ? kBarrierSpins : member->spins;
  const bool enough = phase_.wait(phase, spins);
  const int32_t next = enough ? spins * 2 : spins / 2;
  member->spins = next < kLeastSpins ? kLeastSpins : next > kBarrierSpins ? kBarrierSpins : next;
}

}  // namespace forerun
