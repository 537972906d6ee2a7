// A program on a device: its kernels, and its weights uploaded once for all sessions.
#ifndef FORERUN_DEVICE_DEVICE_PROGRAM_H
#define FORERUN_DEVICE_DEVICE_PROGRAM_H

#include "device/device.h"

namespace forerun {

class DeviceProgram {
 public:
  // Finds the device, builds the kernels and uploads the weights out of the whole file `weights`.
  Status open(const forerun_device_program& program, const uint8_t* weights);

  const forerun_device_program& program() const { return *program_; }
  Device* device() const { return device_.get(); }
  const DeviceBuffer& weight(int32_t number) const { return weights_[number]; }

 private:
  const forerun_device_program* program_ = nullptr;
  std::unique_ptr<Device> device_;
  std::unique_ptr<DeviceBuffer[]> weights_;
};

// Refuses tables whose numbers make no sense.
Status check_device_program(const forerun_program& program);

}  // namespace forerun

#endif
