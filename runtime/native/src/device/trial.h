// Kernels that are measured on a device by themselves, over copies of what they read.
#ifndef FORERUN_DEVICE_TRIAL_H
#define FORERUN_DEVICE_TRIAL_H

#include "device/device.h"
#include "forerun/measure.h"

namespace forerun {

class Trial {
 public:
  // Finds the program's device, builds its kernels and reserves the arrays, every byte of them 0x24. The
  // program has to outlive this.
  Status open(const forerun_device_program& program, const forerun_trial_array* arrays, int32_t count);
  // Runs one kernel `calls` times, then measures that many calls more.
  Status run(int32_t kernel, int32_t rows, int32_t calls, uint64_t* ns);

 private:
  Status check_kernels() const;
  Status reserve(const forerun_trial_array* arrays);
  void launch(int32_t kernel, int32_t rows, int32_t call);

  // One parameter's memory; without copies it is a number.
  struct Array {
    std::unique_ptr<DeviceBuffer[]> copies;
    int32_t count = 0;
  };

  const forerun_device_program* program_ = nullptr;
  std::unique_ptr<Device> device_;
  std::unique_ptr<Array[]> arrays_;
  int32_t count_ = 0;
  std::unique_ptr<Queue> queue_;
};

}  // namespace forerun

#endif
