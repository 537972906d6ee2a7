#include "device/cuda.h"

#include <cstring>
#include <new>
#include <vector>

#include "device/choice.h"
#include "device/cuda_device.h"

namespace forerun {

Status cuda_failed(const CudaApi& api, const char* what, int32_t code) {
  const char* reason = nullptr;
  api.cuGetErrorString(code, &reason);
  return fail(code == kCudaOutOfMemory ? FORERUN_OUT_OF_MEMORY : FORERUN_DEVICE,
              "the GPU failed at %s: %s (code %d)", what, reason != nullptr ? reason : "unknown", code);
}

Status CudaDevice::open() {
  const int32_t code = api_.cuDevicePrimaryCtxRetain(&context_, device_);
  return code == 0 ? FORERUN_OK : cuda_failed(api_, "opening it", code);
}

Status CudaDevice::build(const forerun_device_program& program) {
  program_ = &program;
  enter();
  const int32_t code = api_.cuModuleLoadData(&module_, program.binary);
  if (code == kCudaNoBinaryForGpu) return refuse_binary();
  if (code != 0) return cuda_failed(api_, "loading the bundle's kernels", code);
  functions_.resize(program.kernel_count);
  for (int32_t k = 0; k < program.kernel_count; ++k) {
    const int32_t found = api_.cuModuleGetFunction(&functions_[k], module_, program.kernels[k].name);
    if (found != 0) return cuda_failed(api_, program.kernels[k].name, found);
  }
  return FORERUN_OK;
}

Status CudaDevice::refuse_binary() const {
  int32_t major = 0, minor = 0;
  api_.cuDeviceGetAttribute(&major, kCudaMajor, device_);
  api_.cuDeviceGetAttribute(&minor, kCudaMinor, device_);
  return fail(FORERUN_DEVICE,
              "the bundle's kernels are for GPUs of another architecture than %s, which has compute "
              "capability %d.%d; "
              "compile the bundle for it with --target",
              name_.c_str(), major, minor);
}

Status CudaDevice::reserve(uint64_t bytes, const char* what, void** handle) {
  enter();
  CudaAddress found = 0;
  const int32_t code = api_.cuMemAlloc_v2(&found, bytes);
  *handle = reinterpret_cast<void*>(found);
  if (code == 0) return FORERUN_OK;
  if (code != kCudaOutOfMemory) return cuda_failed(api_, what, code);
  return fail(FORERUN_OUT_OF_MEMORY,
              "no memory on %s for %s (%llu MB); use fewer sequences or a smaller capacity", name_.c_str(),
              what, static_cast<unsigned long long>(bytes >> 20));
}

Status CudaDevice::open_queue(std::unique_ptr<Queue>* queue) {
  auto* opened = new (std::nothrow) CudaQueue(*this);
  if (opened == nullptr) return fail(FORERUN_OUT_OF_MEMORY, "no memory for a queue");
  queue->reset(opened);
  return opened->open();
}

Status find_cuda(std::unique_ptr<Device>* device) {
  const CudaApi* api = nullptr;
  FORERUN_TRY(load_cuda(&api));
  int32_t count = 0;
  const int32_t code = api->cuDeviceGetCount(&count);
  if (code != 0) return cuda_failed(*api, "counting GPUs", code);
  std::vector<int32_t> numbers(count);
  std::vector<DeviceChoice> found;
  for (int32_t i = 0; i < count; ++i) {
    char name[256] = "";
    if (api->cuDeviceGet(&numbers[i], i) != 0) continue;
    api->cuDeviceGetName(name, sizeof name - 1, numbers[i]);
    found.push_back({&numbers[i], name, 0});
  }
  const DeviceChoice* chosen = nullptr;
  FORERUN_TRY(choose_device("CUDA", found, &chosen));
  auto* opened = new (std::nothrow) CudaDevice(*api, *static_cast<int32_t*>(chosen->handle), chosen->name);
  if (opened == nullptr) return fail(FORERUN_OUT_OF_MEMORY, "no memory for a device");
  device->reset(opened);
  return opened->open();
}

}  // namespace forerun
