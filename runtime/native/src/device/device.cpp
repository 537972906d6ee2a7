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

Status check_piece(const Device& device, const char* what, uint64_t bytes, uint64_t most) {
  if (bytes <= most) return FORERUN_OK;
  return fail(FORERUN_OUT_OF_MEMORY,
              "%s take %llu MB in one piece; %s has at most %llu: use fewer sequences or a smaller capacity",
              what, static_cast<unsigned long long>(bytes >> 20), device.name().c_str(),
              static_cast<unsigned long long>(most >> 20));
}

#ifdef __wasm__

// The other backends then do not get into a module.
Status find_device(const char* interface, std::unique_ptr<Device>* device) {
  if (std::strcmp(interface, "webgpu") == 0) return find_webgpu(device);
  return fail(FORERUN_DEVICE, "WebAssembly runs no programs for %s devices", interface);
}

#else

Status find_device(const char* interface, std::unique_ptr<Device>* device) {
  if (std::strcmp(interface, "cuda") == 0) return find_cuda(device);
  if (std::strcmp(interface, "opencl") == 0) return find_opencl(device);
  if (std::strcmp(interface, "webgpu") == 0) return find_webgpu(device);
  return fail(FORERUN_DEVICE, "this build of the core runs no programs for %s devices", interface);
}

#endif

}  // namespace forerun
