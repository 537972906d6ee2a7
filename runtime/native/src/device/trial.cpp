#include "device/trial.h"

#include <algorithm>
#include <new>

#include "clock.h"
#include "memory.h"

namespace forerun {
namespace {

constexpr uint64_t kPieceBytes = 1 << 20;  // written at a time
// 4-bit weights 4 and 2, 8-bit ones 36, float16 0.016, float32 3.6e-17: no trouble to compute with.
constexpr uint8_t kFill = 0x24;

Status no_memory() {
  return fail(FORERUN_OUT_OF_MEMORY, "no memory for a trial");
}

}  // namespace

Status Trial::open(const forerun_device_program& program, const forerun_trial_array* arrays, int32_t count) {
  program_ = &program;
  count_ = count;
  FORERUN_TRY(check_kernels());
  FORERUN_TRY(find_device(program.device, &device_));
  FORERUN_TRY(device_->build(program));
  FORERUN_TRY(device_->open_queue(&queue_));
  return reserve(arrays);
}

Status Trial::check_kernels() const {
  for (int32_t k = 0; k < program_->kernel_count; ++k) {
    const forerun_device_kernel& kernel = program_->kernels[k];
    bool sound = kernel.argument_count <= kMostArguments && kernel.columns_kind == 0;
    for (int32_t i = 0; sound && i < kernel.argument_count; ++i) sound = kernel.arguments[i] <= count_;
    if (!sound) {
      return fail(FORERUN_INVALID_ARGUMENT,
                  "%s is no kernel to try: it may take %d arguments, of %d arrays and its rows, and its grid "
                  "may depend on rows alone",
                  kernel.name, kMostArguments, count_);
    }
  }
  return FORERUN_OK;
}

Status Trial::reserve(const forerun_trial_array* arrays) {
  Region piece;
  FORERUN_TRY(piece.reserve(kPieceBytes, 1, "what is written to a device"));
  std::fill_n(piece.as<uint8_t>(), kPieceBytes, kFill);
  arrays_.reset(new (std::nothrow) Array[count_]);
  if (!arrays_) return no_memory();
  for (int32_t i = 0; i < count_; ++i) {
    Array& array = arrays_[i];
    array.copies.reset(new (std::nothrow) DeviceBuffer[arrays[i].copies]);
    if (!array.copies) return no_memory();
    array.count = arrays[i].copies;
    for (int32_t c = 0; c < array.count; ++c) {
      FORERUN_TRY(array.copies[c].reserve(device_.get(), arrays[i].bytes, "what kernels are tried on"));
      for (uint64_t done = 0; done < arrays[i].bytes; done += kPieceBytes) {
        queue_->write(array.copies[c], done, piece.as<uint8_t>(),
                      std::min(kPieceBytes, arrays[i].bytes - done));
      }
    }
  }
  return queue_->finish();
}

void Trial::launch(int32_t kernel, int32_t rows, int32_t call) {
  const forerun_device_kernel& listed = program_->kernels[kernel];
  DeviceArgument given[kMostArguments];
  for (int32_t i = 0; i < listed.argument_count; ++i) {
    const int32_t place = listed.arguments[i];
    if (place == count_) {
      given[i] = {nullptr, rows};
    } else if (arrays_[place].count == 0) {
      given[i] = {nullptr, 0};
    } else {
      given[i] = {arrays_[place].copies[call % arrays_[place].count].handle(), 0};
    }
  }
  queue_->launch(kernel, given, listed.columns * listed.each,
                 listed.rows > 0 ? (rows + listed.rows - 1) / listed.rows : 1);
}

Status Trial::run(int32_t kernel, int32_t rows, int32_t calls, uint64_t* ns) {
  // What a driver does at the first launch of its kind is done in the first round; a queue that records what
  // comes again does so in the second.
  constexpr int32_t kRounds = 3;
  for (int32_t round = 0; round < kRounds; ++round) {
    const uint64_t begin = now_ns();
    for (int32_t call = 0; call < calls; ++call) launch(kernel, rows, call);
    FORERUN_TRY(queue_->finish());
    *ns = now_ns() - begin;
  }
  return FORERUN_OK;
}

}  // namespace forerun
