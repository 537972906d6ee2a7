#include "thread.h"

#include <signal.h>

#include <initializer_list>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace forerun {
namespace {

void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb" ::: "memory");
#endif
}

// Signals stay with the application's own threads, but those that an instruction raises: they belong to the
// thread that executes it, and blocked they would end the process past any handler that reports or mends
// them. Threads inherit what their creator blocks.
class SignalsKept {
 public:
  SignalsKept() {
    sigset_t others;
    sigfillset(&others);
    for (const int own : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP}) sigdelset(&others, own);
    pthread_sigmask(SIG_SETMASK, &others, &before_);
  }
  ~SignalsKept() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsKept(const SignalsKept&) = delete;
  SignalsKept& operator=(const SignalsKept&) = delete;

 private:
  sigset_t before_;
};

}  // namespace

Signal::~Signal() {
  pthread_cond_destroy(&changed_);
  pthread_mutex_destroy(&mutex_);
}

void Signal::advance() {
  // Sequentially consistent with the sleeper's announcement: either it sees the new value or we see the
  // sleeper.
  value_.fetch_add(1, std::memory_order_seq_cst);
  if (sleepers_.load(std::memory_order_seq_cst) == 0) return;
  pthread_mutex_lock(&mutex_);
  pthread_cond_broadcast(&changed_);
  pthread_mutex_unlock(&mutex_);
}

bool Signal::wait(uint32_t old, int32_t spins) {
  for (int32_t i = 0; i < spins; ++i) {
    if (value_.load(std::memory_order_acquire) != old) return true;
    pause();
  }
  pthread_mutex_lock(&mutex_);
  sleepers_.fetch_add(1, std::memory_order_seq_cst);
  while (value_.load(std::memory_order_seq_cst) == old) pthread_cond_wait(&changed_, &mutex_);
  sleepers_.fetch_sub(1, std::memory_order_relaxed);
  pthread_mutex_unlock(&mutex_);
  return false;
}

int Thread::start(void* (*function)(void*), void* argument) {
  const SignalsKept kept;
  return pthread_create(&thread_, nullptr, function, argument);
}

void Thread::join() {
  pthread_join(thread_, nullptr);
}

}  // namespace forerun
