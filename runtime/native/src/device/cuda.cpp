#include "device/cuda.h"

#include <cstring>
#include <new>
#include <vector>

#include "device/choice.h"
#include "device/cuda_api.h"

namespace forerun {
namespace {

CudaAddress address(void* handle) {
  return reinterpret_cast<CudaAddress>(handle);
}

Status failed(const CudaApi& api, const char* what, int32_t code) {
  const char* reason = nullptr;
  api.cuGetErrorString(code, &reason);
  return fail(code == kCudaOutOfMemory ? FORERUN_OUT_OF_MEMORY : FORERUN_DEVICE,
              "the GPU failed at %s: %s (code %d)", what, reason != nullptr ? reason : "unknown", code);
}

class CudaDevice final : public Device {
 public:
  CudaDevice(const CudaApi& api, int32_t device, std::string name)
      : api_(api), device_(device), name_(std::move(name)) {}
  ~CudaDevice() override {
    enter();
    if (module_ != nullptr) api_.cuModuleUnload(module_);
    if (context_ != nullptr) api_.cuDevicePrimaryCtxRelease_v2(device_);
  }

  Status open();
  const std::string& name() const override { return name_; }
  Status build(const forerun_device_program& program) override;
  Status reserve(uint64_t bytes, const char* what, void** handle) override;
  void release(void* handle) override {
    enter();
    api_.cuMemFree_v2(address(handle));
  }
  Status open_queue(std::unique_ptr<Queue>* queue) override;

  const CudaApi& api() const { return api_; }
  CudaHandle function(int32_t kernel) const { return functions_[kernel]; }
  const forerun_device_program& program() const { return *program_; }
  // Every thread that calls the driver says for which context.
  void enter() const { api_.cuCtxSetCurrent(context_); }

 private:
  Status refuse_binary() const;

  const CudaApi& api_;
  int32_t device_;
  std::string name_;
  CudaHandle context_ = nullptr, module_ = nullptr;
  std::vector<CudaHandle> functions_;
  const forerun_device_program* program_ = nullptr;
};

class CudaQueue final : public Queue {
 public:
  explicit CudaQueue(const CudaDevice& device) : device_(device), api_(device.api()) {}
  ~CudaQueue() override {
    device_.enter();
    if (stream_ == nullptr) return;
    api_.cuStreamSynchronize(stream_);
    api_.cuStreamDestroy_v2(stream_);
  }

  Status open() {
    device_.enter();
    const int32_t code = api_.cuStreamCreate(&stream_, kCudaNonBlocking);
    return code == 0 ? FORERUN_OK : failed(api_, "making a stream", code);
  }
  void write(const DeviceBuffer& buffer, uint64_t offset, const void* data, uint64_t bytes) override {
    if (!ready(bytes)) return;
    note("writing memory",
         api_.cuMemcpyHtoDAsync_v2(address(buffer.handle()) + offset, data, bytes, stream_));
  }
  void read(const DeviceBuffer& buffer, uint64_t offset, void* data, uint64_t bytes) override {
    if (!ready(bytes)) return;
    note("reading memory",
         api_.cuMemcpyDtoHAsync_v2(data, address(buffer.handle()) + offset, bytes, stream_));
  }
  void copy(const DeviceBuffer& from, uint64_t source, const DeviceBuffer& to, uint64_t sink,
            uint64_t bytes) override {
    if (!ready(bytes)) return;
    note("copying memory", api_.cuMemcpyDtoDAsync_v2(address(to.handle()) + sink,
                                                     address(from.handle()) + source, bytes, stream_));
  }
  void launch(int32_t kernel, const DeviceArgument* arguments, int32_t columns, int32_t rows) override;
  Status finish() override {
    if (ready(1)) note("waiting for it", api_.cuStreamSynchronize(stream_));
    return code_ == 0 ? FORERUN_OK : failed(api_, what_, code_);
  }

 private:
  // Whether there is something to do.
  bool ready(uint64_t bytes) const {
    device_.enter();
    return code_ == 0 && bytes > 0;
  }
  void note(const char* what, int32_t code) {
    if (code == 0 || code_ != 0) return;
    what_ = what;
    code_ = code;
  }

  const CudaDevice& device_;
  const CudaApi& api_;
  CudaHandle stream_ = nullptr;
  const char* what_ = nullptr;  // the first thing that failed
  int32_t code_ = 0;
};

Status CudaDevice::open() {
  const int32_t code = api_.cuDevicePrimaryCtxRetain(&context_, device_);
  return code == 0 ? FORERUN_OK : failed(api_, "opening it", code);
}

Status CudaDevice::build(const forerun_device_program& program) {
  program_ = &program;
  enter();
  const int32_t code = api_.cuModuleLoadData(&module_, program.binary);
  if (code == kCudaNoBinaryForGpu) return refuse_binary();
  if (code != 0) return failed(api_, "loading the bundle's kernels", code);
  functions_.resize(program.kernel_count);
  for (int32_t k = 0; k < program.kernel_count; ++k) {
    const int32_t found = api_.cuModuleGetFunction(&functions_[k], module_, program.kernels[k].name);
    if (found != 0) return failed(api_, program.kernels[k].name, found);
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
  if (code != kCudaOutOfMemory) return failed(api_, what, code);
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

void CudaQueue::launch(int32_t kernel, const DeviceArgument* arguments, int32_t columns, int32_t rows) {
  constexpr int32_t kMostArguments = 32;
  if (!ready(1)) return;
  const forerun_device_kernel& listed = device_.program().kernels[kernel];
  void* given[kMostArguments];
  for (int32_t i = 0; i < listed.argument_count && i < kMostArguments; ++i) {
    // The driver reads them before it returns.
    const void* value = arguments[i].buffer != nullptr ? static_cast<const void*>(&arguments[i].buffer)
                                                       : &arguments[i].number;
    given[i] = const_cast<void*>(value);
  }
  note(listed.name, api_.cuLaunchKernel(device_.function(kernel), static_cast<uint32_t>(columns),
                                        static_cast<uint32_t>(rows), 1, static_cast<uint32_t>(listed.threads),
                                        1, 1, 0, stream_, given, nullptr));
}

}  // namespace

Status find_cuda(std::unique_ptr<Device>* device) {
  const CudaApi* api = nullptr;
  FORERUN_TRY(load_cuda(&api));
  int32_t count = 0;
  const int32_t code = api->cuDeviceGetCount(&count);
  if (code != 0) return failed(*api, "counting GPUs", code);
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
