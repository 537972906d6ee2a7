#include "profile.h"

#include <cstring>

namespace forerun {

Status Profile::reserve(const forerun_program& program, int32_t threads) {
  threads_ = threads;
  kernels_ = program.kernels;
  cells_ = static_cast<int64_t>(program.layers) * program.kernels;
  stride_ = static_cast<int64_t>(round_up(static_cast<uint64_t>(cells_) * 2, kAlignment / sizeof(uint64_t)));
  FORERUN_TRY(threads_memory_.reserve(threads, sizeof(Thread), "a profile"));
  return sums_memory_.reserve(threads, static_cast<uint64_t>(stride_) * sizeof(uint64_t), "a profile");
}

void Profile::begin() {
  complete_ = false;
  std::memset(sums(0), 0, static_cast<size_t>(threads_ * stride_) * sizeof(uint64_t));
  const uint64_t now = now_ns();
  for (int32_t tid = 0; tid < threads_; ++tid) thread(tid) = {now, 0};
}

void Profile::end() {
  const uint64_t now = now_ns();
  for (int32_t tid = 0; tid < threads_; ++tid) {
    thread(tid).core_ns += now - thread(tid).last_ns;
    thread(tid).last_ns = now;
  }
  complete_ = true;
}

void Profile::leave_core(int32_t tid) {
  const uint64_t now = now_ns();
  Thread& own = thread(tid);
  own.core_ns += now - own.last_ns;
  own.last_ns = now;
}

void Profile::mark(void* profile, int32_t tid, int32_t layer, int32_t kernel, int32_t event) {
  const uint64_t now = now_ns();
  const Profile& self = *static_cast<Profile*>(profile);
  Thread& own = self.thread(tid);
  const int64_t cell = static_cast<int64_t>(layer) * self.kernels_ + kernel;
  self.sums(tid)[2 * cell + (event == FORERUN_MARK_MET ? 1 : 0)] += now - own.last_ns;
  own.last_ns = now;
}

void Profile::read(uint64_t* ran_ns, uint64_t* waited_ns, uint64_t* core_ns) const {
  for (int32_t tid = 0; tid < threads_; ++tid) {
    for (int64_t cell = 0; cell < cells_; ++cell) {
      ran_ns[tid * cells_ + cell] = sums(tid)[2 * cell];
      waited_ns[tid * cells_ + cell] = sums(tid)[2 * cell + 1];
    }
    core_ns[tid] = thread(tid).core_ns;
  }
}

}  // namespace forerun
