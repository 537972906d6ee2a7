// Takes the place of src/thread.cpp on WebAssembly: threads are workers that the app started beforehand, each
// with an instance of the module on the same memory, since none can be started while the core computes.
#include "thread.h"

#include <cerrno>

#include "helpers.h"
#include "team.h"

namespace forerun {
namespace {

// There is no instruction for a pause; so many loads stand for one. To sleep and wake takes long here: with
// 16 and 64 of them, tokens of SmolLM2 took 1.4 and 1.1 times as long on two threads (Node 20).
constexpr int32_t kLoadsPerPause = 256;

struct Helper {
  Signal work;  // even: waits for a function; odd: runs it
  void* (*function)(void*) = nullptr;
  void* argument = nullptr;
};

Helper helpers[kMaxThreads];
int32_t given_helpers = 0;

// Only the thread that opens bundles and creates sessions, which is the first one, starts and joins others.
int32_t idle_helper() {
  for (int32_t i = 0; i < given_helpers; ++i) {
    if (helpers[i].work.value() % 2 == 0) return i;
  }
  return -1;
}

}  // namespace

int32_t helper_count() {
  int32_t idle = 0;
  for (int32_t i = 0; i < given_helpers; ++i) idle += helpers[i].work.value() % 2 == 0 ? 1 : 0;
  return idle;
}

Signal::~Signal() = default;

void Signal::advance() {
  // Sequentially consistent with the sleeper's announcement: either it sees the new value or we see the
  // sleeper.
  value_.fetch_add(1, std::memory_order_seq_cst);
  if (sleepers_.load(std::memory_order_seq_cst) == 0) return;
  __builtin_wasm_memory_atomic_notify(reinterpret_cast<int*>(&value_), UINT32_MAX);
}

bool Signal::wait(uint32_t old, int32_t spins) {
  for (int32_t i = 0; i < spins * kLoadsPerPause; ++i) {
    if (value_.load(std::memory_order_acquire) != old) return true;
  }
  constexpr int64_t kForever = -1;
  sleepers_.fetch_add(1, std::memory_order_seq_cst);
  while (value_.load(std::memory_order_seq_cst) == old) {
    __builtin_wasm_memory_atomic_wait32(reinterpret_cast<int*>(&value_), static_cast<int>(old), kForever);
  }
  sleepers_.fetch_sub(1, std::memory_order_relaxed);
  return false;
}

int Thread::start(void* (*function)(void*), void* argument) {
  helper_ = idle_helper();
  if (helper_ < 0) return EAGAIN;
  Helper& helper = helpers[helper_];
  helper.function = function;
  helper.argument = argument;
  helper.work.advance();
  return 0;
}

void Thread::join() {
  Signal& work = helpers[helper_].work;
  const uint32_t value = work.value();
  if (value % 2 == 1) work.wait(value, 0);
}

}  // namespace forerun

extern "C" void forerun_have_helpers(int32_t count) {
  forerun::given_helpers = count;
}

extern "C" void forerun_help(int32_t number) {
  forerun::Helper& helper = forerun::helpers[number];
  for (uint32_t done = 0;; done += 2) {
    helper.work.wait(done, 0);
    helper.function(helper.argument);
    helper.work.advance();
  }
}
