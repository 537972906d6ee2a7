#include "device/device.h"

#include <cstring>

#include "device/cuda.h"
#include "device/opencl.h"
#include "device/webgpu.h"

namespace forerun {

DeviceBuffer::~DeviceBuffer() {
  if (handle_ != nullptr) device_->release(handle_);
}

Status DeviceBuffer::reserve(Device* device, uint64_t bytes, const char* what) {
  device_ = device;
  return device->reserve(bytes > 0 ? bytes : 4, what, &handle_);
}

Status find_device(const char* interface, std::unique_ptr<Device>* device) {
  if (std::strcmp(interface, "cuda") == 0) return find_cuda(device);
  if (std::strcmp(interface, "opencl") == 0) return find_opencl(device);
  if (std::strcmp(interface, "webgpu") == 0) return find_webgpu(device);
  return fail(FORERUN_DEVICE, "this build of the core runs no programs for %s devices", interface);
}

}  // namespace forerun
