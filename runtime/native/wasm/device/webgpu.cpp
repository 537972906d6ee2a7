// Takes the place of src/device/webgpu.cpp on WebAssembly: JavaScript holds the GPU and everything of it.
#include "device/webgpu.h"

#include <new>
#include <vector>

#include "gpu.h"

namespace forerun {
namespace {

constexpr int32_t kTextBytes = 600;

void* handle_of(int32_t number) {
  return reinterpret_cast<void*>(static_cast<uintptr_t>(number));
}

int32_t number_of(const void* handle) {
  return static_cast<int32_t>(reinterpret_cast<uintptr_t>(handle));
}

Status wait(int32_t queue, const std::string& device) {
  char text[kTextBytes];
  const int32_t status = gpu_finish(queue, text, sizeof text);
  if (status == FORERUN_OK) return FORERUN_OK;
  return fail(static_cast<forerun_status>(status), "the device %s failed: %s", device.c_str(), text);
}

class WebQueue final : public Queue {
 public:
  WebQueue(const forerun_device_program& program, const std::vector<int32_t>& kernels,
           const std::string& device)
      : program_(program), kernels_(kernels), device_(device), number_(gpu_open_queue()) {}
  ~WebQueue() override { gpu_close_queue(number_); }

  void write(const DeviceBuffer& buffer, uint64_t offset, const void* data, uint64_t bytes) override {
    gpu_write(number_, number_of(buffer.handle()), static_cast<uint32_t>(offset), data,
              static_cast<uint32_t>(bytes));
  }
  void read(const DeviceBuffer& buffer, uint64_t offset, void* data, uint64_t bytes) override {
    gpu_read(number_, number_of(buffer.handle()), static_cast<uint32_t>(offset), data,
             static_cast<uint32_t>(bytes));
  }
  void copy(const DeviceBuffer& from, uint64_t source, const DeviceBuffer& to, uint64_t sink,
            uint64_t bytes) override {
    gpu_copy(number_, number_of(from.handle()), static_cast<uint32_t>(source), number_of(to.handle()),
             static_cast<uint32_t>(sink), static_cast<uint32_t>(bytes));
  }
  void launch(int32_t kernel, const DeviceArgument* arguments, int32_t columns, int32_t rows) override {
    gpu_launch(number_, kernels_[kernel], arguments, program_.kernels[kernel].argument_count, columns, rows);
  }
  Status finish() override { return wait(number_, device_); }

 private:
  const forerun_device_program& program_;
  const std::vector<int32_t>& kernels_;
  const std::string& device_;
  int32_t number_;
};

class WebDevice final : public Device {
 public:
  WebDevice(const char* name, uint32_t most_bytes) : name_(name), most_bytes_(most_bytes) {}
  ~WebDevice() override {
    for (const int32_t kernel : kernels_) gpu_release_kernel(kernel);
  }

  const std::string& name() const override { return name_; }

  Status build(const forerun_device_program& program) override {
    program_ = &program;
    for (int32_t k = 0; k < program.kernel_count; ++k) {
      kernels_.push_back(gpu_make_kernel(program.kernels[k].name, program.kernels[k].source));
    }
    return WebQueue(program, kernels_, name_).finish();
  }

  Status reserve(uint64_t bytes, const char* what, void** handle) override {
    FORERUN_TRY(check_piece(*this, what, bytes, most_bytes_));
    *handle = handle_of(gpu_reserve(static_cast<uint32_t>(bytes)));
    return FORERUN_OK;
  }

  void release(void* handle) override { gpu_release(number_of(handle)); }

  Status open_queue(std::unique_ptr<Queue>* queue) override {
    queue->reset(new (std::nothrow) WebQueue(*program_, kernels_, name_));
    return *queue ? FORERUN_OK : fail(FORERUN_OUT_OF_MEMORY, "no memory for a queue");
  }

 private:
  std::string name_;
  uint32_t most_bytes_;
  const forerun_device_program* program_ = nullptr;
  std::vector<int32_t> kernels_;
};

}  // namespace

Status find_webgpu(std::unique_ptr<Device>* device) {
  char text[kTextBytes];
  uint32_t most_bytes = 0;
  if (gpu_describe(text, sizeof text, &most_bytes) == 0) return fail(FORERUN_DEVICE, "%s", text);
  device->reset(new (std::nothrow) WebDevice(text, most_bytes));
  return *device ? FORERUN_OK : fail(FORERUN_OUT_OF_MEMORY, "no memory for a device");
}

}  // namespace forerun
