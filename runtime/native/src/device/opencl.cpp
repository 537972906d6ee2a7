#include "device/opencl.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

#include "device/choice.h"
#include "device/opencl_api.h"

namespace forerun {
namespace {

using CL = OpenClApi;

// What all kernels are written for.
constexpr uint64_t kLeastLocalBytes = 16384;

Status failed(const char* what, int32_t code) {
  const char* hint = code == kClOutOfResources || code == kClMemObjectAllocationFailure
                         ? " (the device's memory is full: use fewer sequences or a smaller capacity)"
                         : "";
  return fail(FORERUN_DEVICE, "the OpenCL device failed at %s with code %d%s", what, code, hint);
}

template <typename T>
T ask(const CL& cl, ClHandle device, uint32_t what) {
  T value{};
  cl.clGetDeviceInfo(device, what, sizeof value, &value, nullptr);
  return value;
}

// Memory of the device, and the image that kernels read it as: made for the first that does.
struct Memory {
  ClHandle buffer = nullptr;
  uint64_t bytes = 0;
  std::atomic<ClHandle> image{nullptr};
};

ClHandle buffer_of(const DeviceBuffer& memory) {
  return static_cast<const Memory*>(memory.handle())->buffer;
}

class OpenClDevice final : public Device {
 public:
  OpenClDevice(const CL& cl, ClHandle device, std::string name)
      : cl_(cl), device_(device), name_(std::move(name)) {}
  ~OpenClDevice() override {
    if (program_ != nullptr) cl_.clReleaseProgram(program_);
    if (context_ != nullptr) cl_.clReleaseContext(context_);
  }

  Status open();
  const std::string& name() const override { return name_; }
  Status build(const forerun_device_program& program) override;
  Status reserve(uint64_t bytes, const char* what, void** handle) override;
  void release(void* handle) override;
  Status open_queue(std::unique_ptr<Queue>* queue) override;

 private:
  Status check_images(const forerun_device_program& program, const forerun_device_kernel& kernel) const;
  Status refuse_source() const;

  const CL& cl_;
  ClHandle device_;
  std::string name_;
  ClHandle context_ = nullptr;
  ClHandle program_ = nullptr;
  const forerun_device_program* listed_ = nullptr;
};

class OpenClQueue final : public Queue {
 public:
  OpenClQueue(const CL& cl, const forerun_device_program& listed) : cl_(cl), listed_(listed) {}
  ~OpenClQueue() override {
    if (queue_ != nullptr) cl_.clFinish(queue_);
    for (ClHandle kernel : kernels_) cl_.clReleaseKernel(kernel);
    if (queue_ != nullptr) cl_.clReleaseCommandQueue(queue_);
  }

  Status open(ClHandle context, ClHandle device, ClHandle program);
  void write(const DeviceBuffer& buffer, uint64_t offset, const void* data, uint64_t bytes) override;
  void read(const DeviceBuffer& buffer, uint64_t offset, void* data, uint64_t bytes) override;
  void copy(const DeviceBuffer& from, uint64_t source, const DeviceBuffer& to, uint64_t sink,
            uint64_t bytes) override;
  void launch(int32_t kernel, const DeviceArgument* arguments, int32_t columns, int32_t rows) override;
  Status finish() override;

 private:
  void note(const char* what, int32_t code) {
    if (code == 0 || code_ != 0) return;
    what_ = what;
    code_ = code;
  }
  // The image over some memory; nullptr where there can be none.
  ClHandle image_of(Memory* memory);

  const CL& cl_;
  const forerun_device_program& listed_;
  ClHandle context_ = nullptr;
  ClHandle queue_ = nullptr;
  std::vector<ClHandle> kernels_;  // of this queue alone: a kernel holds its arguments
  const char* what_ = nullptr;     // the first thing that failed
  int32_t code_ = 0;
};

Status OpenClDevice::open() {
  int32_t code = 0;
  context_ = cl_.clCreateContext(nullptr, 1, &device_, nullptr, nullptr, &code);
  if (context_ == nullptr) return failed("clCreateContext", code);
  const auto local = ask<uint64_t>(cl_, device_, kClDeviceLocalMemSize);
  if (local < kLeastLocalBytes) {
    return fail(FORERUN_DEVICE, "%s has %llu bytes of local memory; the kernels need %llu", name_.c_str(),
                static_cast<unsigned long long>(local), static_cast<unsigned long long>(kLeastLocalBytes));
  }
  return FORERUN_OK;
}

Status OpenClDevice::build(const forerun_device_program& program) {
  listed_ = &program;
  const auto most = ask<size_t>(cl_, device_, kClDeviceMaxWorkGroupSize);
  std::vector<const char*> sources;
  for (int32_t k = 0; k < program.kernel_count; ++k) {
    const forerun_device_kernel& kernel = program.kernels[k];
    sources.push_back(kernel.source);
    if (kernel.images != 0) FORERUN_TRY(check_images(program, kernel));
    if (static_cast<size_t>(kernel.threads) <= most) continue;
    return fail(FORERUN_DEVICE, "%s runs at most %zu threads in a workgroup; %s has %d", name_.c_str(), most,
                kernel.name, kernel.threads);
  }
  int32_t code = 0;
  const auto count = static_cast<uint32_t>(sources.size());
  program_ = cl_.clCreateProgramWithSource(context_, count, sources.data(), nullptr, &code);
  if (program_ == nullptr) return failed("clCreateProgramWithSource", code);
  // Begins with "OpenCL " and the version. Of the language's versions 3.0 is the first to say what a device
  // has.
  char version[64] = "";
  cl_.clGetDeviceInfo(device_, kClDeviceVersion, sizeof version - 1, version, nullptr);
  const char* options = std::strtol(version + 7, nullptr, 10) >= 3 ? "-cl-std=CL3.0" : "";
  code = cl_.clBuildProgram(program_, 1, &device_, options, nullptr, nullptr);
  return code == 0                        ? FORERUN_OK
         : code == kClBuildProgramFailure ? refuse_source()
                                          : failed("clBuildProgram", code);
}

Status OpenClDevice::check_images(const forerun_device_program& program,
                                  const forerun_device_kernel& kernel) const {
  uint64_t bytes = 0;
  for (int32_t i = 0; i < program.weight_count; ++i) bytes = std::max(bytes, program.weights[i].bytes);
  const bool some = ask<uint32_t>(cl_, device_, kClDeviceImageSupport) != 0;
  const uint64_t most = some ? ask<size_t>(cl_, device_, kClDeviceImageMaxBufferSize) : 0;
  if (bytes / 4 <= most && most > 0) return FORERUN_OK;
  return fail(
      FORERUN_DEVICE,
      "%s reads images of at most %llu words; %s has weights of %llu; compile for opencl or opencl-arm64",
      name_.c_str(), static_cast<unsigned long long>(most), kernel.name,
      static_cast<unsigned long long>(bytes / 4));
}

Status OpenClDevice::refuse_source() const {
  char log[400] = "";
  size_t bytes = 0;
  cl_.clGetProgramBuildInfo(program_, device_, kClProgramBuildLog, 0, nullptr, &bytes);
  std::vector<char> all(bytes + 1, '\0');
  cl_.clGetProgramBuildInfo(program_, device_, kClProgramBuildLog, bytes, all.data(), nullptr);
  std::strncpy(log, all.data(), sizeof log - 1);
  return fail(FORERUN_DEVICE, "the compiler of %s refused the bundle's kernels: %s", name_.c_str(), log);
}

Status OpenClDevice::reserve(uint64_t bytes, const char* what, void** handle) {
  FORERUN_TRY(check_piece(*this, what, bytes, ask<uint64_t>(cl_, device_, kClDeviceMaxMemAllocSize)));
  int32_t code = 0;
  std::unique_ptr<Memory> memory(new (std::nothrow) Memory);
  if (memory) memory->buffer = cl_.clCreateBuffer(context_, kClMemReadWrite, bytes, nullptr, &code);
  if (memory && memory->buffer != nullptr) {
    memory->bytes = bytes;
    *handle = memory.release();
    return FORERUN_OK;
  }
  return fail(FORERUN_OUT_OF_MEMORY,
              "no memory on %s for %s (%llu MB, code %d); use fewer sequences or a smaller capacity",
              name_.c_str(), what, static_cast<unsigned long long>(bytes >> 20), code);
}

void OpenClDevice::release(void* handle) {
  const std::unique_ptr<Memory> memory(static_cast<Memory*>(handle));
  if (memory->image != nullptr) cl_.clReleaseMemObject(memory->image);
  cl_.clReleaseMemObject(memory->buffer);
}

Status OpenClDevice::open_queue(std::unique_ptr<Queue>* queue) {
  auto* opened = new (std::nothrow) OpenClQueue(cl_, *listed_);
  if (opened == nullptr) return fail(FORERUN_OUT_OF_MEMORY, "no memory for a queue");
  queue->reset(opened);
  return opened->open(context_, device_, program_);
}

Status OpenClQueue::open(ClHandle context, ClHandle device, ClHandle program) {
  int32_t code = 0;
  context_ = context;
  queue_ = cl_.clCreateCommandQueue(context, device, 0, &code);
  if (queue_ == nullptr) return failed("clCreateCommandQueue", code);
  for (int32_t k = 0; k < listed_.kernel_count; ++k) {
    const forerun_device_kernel& listed = listed_.kernels[k];
    const ClHandle kernel = cl_.clCreateKernel(program, listed.name, &code);
    if (kernel == nullptr) return failed(listed.name, code);
    kernels_.push_back(kernel);
    size_t threads = 0;
    cl_.clGetKernelWorkGroupInfo(kernel, device, kClKernelWorkGroupSize, sizeof threads, &threads, nullptr);
    if (threads >= static_cast<size_t>(listed.threads)) continue;
    return fail(
        FORERUN_DEVICE,
        "the device has registers for %zu threads of %s in a workgroup; it has %d; compile for a target with "
        "fewer, as opencl-mali",
        threads, listed.name, listed.threads);
  }
  return FORERUN_OK;
}

void OpenClQueue::write(const DeviceBuffer& buffer, uint64_t offset, const void* data, uint64_t bytes) {
  if (code_ != 0 || bytes == 0) return;
  note("writing memory",
       cl_.clEnqueueWriteBuffer(queue_, buffer_of(buffer), 0, offset, bytes, data, 0, nullptr, nullptr));
}

void OpenClQueue::read(const DeviceBuffer& buffer, uint64_t offset, void* data, uint64_t bytes) {
  if (code_ != 0 || bytes == 0) return;
  note("reading memory",
       cl_.clEnqueueReadBuffer(queue_, buffer_of(buffer), 0, offset, bytes, data, 0, nullptr, nullptr));
}

void OpenClQueue::copy(const DeviceBuffer& from, uint64_t source, const DeviceBuffer& to, uint64_t sink,
                       uint64_t bytes) {
  if (code_ != 0 || bytes == 0) return;
  note("copying memory", cl_.clEnqueueCopyBuffer(queue_, buffer_of(from), buffer_of(to), source, sink, bytes,
                                                 0, nullptr, nullptr));
}

void OpenClQueue::launch(int32_t kernel, const DeviceArgument* arguments, int32_t columns, int32_t rows) {
  if (code_ != 0) return;
  const forerun_device_kernel& listed = listed_.kernels[kernel];
  for (int32_t i = 0; i < listed.argument_count; ++i) {
    auto* const memory = static_cast<Memory*>(arguments[i].buffer);
    const bool is_image = (listed.images >> i & 1) != 0;
    const ClHandle object = memory == nullptr ? nullptr : is_image ? image_of(memory) : memory->buffer;
    const void* value = memory != nullptr ? static_cast<const void*>(&object) : &arguments[i].number;
    const size_t size = memory != nullptr ? sizeof object : sizeof arguments[i].number;
    note(listed.name, cl_.clSetKernelArg(kernels_[kernel], static_cast<uint32_t>(i), size, value));
  }
  const size_t local[2] = {static_cast<size_t>(listed.threads), 1};
  const size_t global[2] = {static_cast<size_t>(columns) * local[0], static_cast<size_t>(rows)};
  note(listed.name,
       cl_.clEnqueueNDRangeKernel(queue_, kernels_[kernel], 2, nullptr, global, local, 0, nullptr, nullptr));
}

ClHandle OpenClQueue::image_of(Memory* memory) {
  const ClHandle made = memory->image;
  if (made != nullptr) return made;
  const ClImageFormat words{kClRed, kClUnsignedInt32};
  ClImageShape shape{};
  shape.kind = kClImage1dBuffer;
  shape.width = memory->bytes / 4;
  shape.memory = memory->buffer;
  int32_t code = 0;
  const ClHandle image = cl_.clCreateImage(context_, kClMemReadOnly, &words, &shape, nullptr, &code);
  note("making an image of weights", code);
  ClHandle other = nullptr;  // of another queue, which was faster
  if (image == nullptr || memory->image.compare_exchange_strong(other, image)) return image;
  cl_.clReleaseMemObject(image);
  return other;
}

Status OpenClQueue::finish() {
  note("waiting for it", cl_.clFinish(queue_));
  return code_ == 0 ? FORERUN_OK : failed(what_, code_);
}

std::vector<DeviceChoice> list_devices(const CL& cl) {
  std::vector<DeviceChoice> found;
  uint32_t count = 0;
  if (cl.clGetPlatformIDs(0, nullptr, &count) != 0) return found;
  std::vector<ClHandle> platforms(count);
  cl.clGetPlatformIDs(count, platforms.data(), nullptr);
  for (ClHandle platform : platforms) {
    uint32_t devices = 0;
    if (cl.clGetDeviceIDs(platform, kClDeviceAny, 0, nullptr, &devices) != 0) continue;
    std::vector<ClHandle> handles(devices);
    cl.clGetDeviceIDs(platform, kClDeviceAny, devices, handles.data(), nullptr);
    for (ClHandle handle : handles) {
      char name[256] = "";
      cl.clGetDeviceInfo(handle, kClDeviceName, sizeof name - 1, name, nullptr);
      const auto type = ask<uint64_t>(cl, handle, kClDeviceType);
      found.push_back({handle, name, (type & kClDeviceGpu) != 0 ? 0 : (type & kClDeviceCpu) != 0 ? 2 : 1});
    }
  }
  return found;
}

}  // namespace

Status find_opencl(std::unique_ptr<Device>* device) {
  const CL* cl = nullptr;
  FORERUN_TRY(load_opencl(&cl));
  const std::vector<DeviceChoice> found = list_devices(*cl);
  const DeviceChoice* chosen = nullptr;
  FORERUN_TRY(choose_device("OpenCL", found, &chosen));
  auto* opened = new (std::nothrow) OpenClDevice(*cl, chosen->handle, chosen->name);
  if (opened == nullptr) return fail(FORERUN_OUT_OF_MEMORY, "no memory for a device");
  device->reset(opened);
  return opened->open();
}

}  // namespace forerun
