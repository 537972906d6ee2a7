#include "device/webgpu.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <new>
#include <vector>

#include "device/choice.h"
#include "device/webgpu_api.h"

namespace forerun {
namespace {

constexpr uint32_t kUniformStep = 256;    // every device lets uniforms begin at multiples of it
constexpr uint32_t kMostLaunches = 1024;  // of one submission
constexpr size_t kMostBuffers = 8;        // of one kernel, the least that devices have

constexpr uint64_t whole_words(uint64_t bytes) {
  return (bytes + 3) / 4 * 4;
}

constexpr WgpuText kNoLabel{nullptr, kWgpuZeroTerminated};

std::string text_of(WgpuText text) {
  if (text.data == nullptr) return {};
  return text.length == kWgpuZeroTerminated ? std::string(text.data) : std::string(text.data, text.length);
}

// The first error that the device has told of, from whichever thread.
class Complaint {
 public:
  void note(uint32_t type, WgpuText message) {
    if (taken_.exchange(true)) return;
    const std::string text = text_of(message);
    std::strncpy(text_, text.c_str(), sizeof text_ - 1);
    type_ = type;
    there_.store(true, std::memory_order_release);
  }
  Status status(const std::string& device) const {
    if (!there_.load(std::memory_order_acquire)) return FORERUN_OK;
    return fail(type_ == kWgpuOutOfMemory ? FORERUN_OUT_OF_MEMORY : FORERUN_DEVICE,
                "the device %s failed: %s", device.c_str(), text_);
  }

 private:
  std::atomic<bool> taken_{false}, there_{false};
  uint32_t type_ = 0;
  char text_[600] = "";
};

struct Pipeline {
  WgpuHandle pipeline = nullptr;
  WgpuHandle layout = nullptr;
};

class WebGpuDevice final : public Device {
 public:
  WebGpuDevice(const WgpuApi& api, WgpuHandle instance, WgpuHandle adapter, std::string name)
      : api_(api), instance_(instance), adapter_(adapter), name_(std::move(name)) {}
  ~WebGpuDevice() override;

  Status open();
  const std::string& name() const override { return name_; }
  Status build(const forerun_device_program& program) override;
  Status reserve(uint64_t bytes, const char* what, void** handle) override;
  void release(void* handle) override { api_.wgpuBufferRelease(handle); }
  Status open_queue(std::unique_ptr<Queue>* queue) override;

  const WgpuApi& api() const { return api_; }
  WgpuHandle device() const { return device_; }
  WgpuHandle queue() const { return queue_; }
  const Pipeline& pipeline(int32_t kernel) const { return pipelines_[kernel]; }
  const forerun_device_program& program() const { return *program_; }
  Status complaint() const { return complaint_.status(name_); }
  WgpuHandle make_buffer(uint64_t bytes, uint64_t usage) const {
    const WgpuBufferDescriptor wanted{nullptr, kNoLabel, usage, bytes, 0};
    return api_.wgpuDeviceCreateBuffer(device_, &wanted);
  }

 private:
  const WgpuApi& api_;
  WgpuHandle instance_, adapter_;
  std::string name_;
  WgpuHandle device_ = nullptr, queue_ = nullptr;
  WgpuLimits limits_{};
  std::vector<Pipeline> pipelines_;
  const forerun_device_program* program_ = nullptr;
  Complaint complaint_;
};

// Collects commands and submits them when the caller's memory is to be written or waited for. The numbers of
// a launch are uniforms; its bind group is kept for the launch of the same number in the next submission,
// which nearly always binds the same.
class WebGpuQueue final : public Queue {
 public:
  explicit WebGpuQueue(const WebGpuDevice& device) : device_(device), api_(device.api()) {}
  ~WebGpuQueue() override;

  Status open();
  void write(const DeviceBuffer& buffer, uint64_t offset, const void* data, uint64_t bytes) override;
  void read(const DeviceBuffer& buffer, uint64_t offset, void* data, uint64_t bytes) override;
  void copy(const DeviceBuffer& from, uint64_t source, const DeviceBuffer& to, uint64_t sink,
            uint64_t bytes) override;
  void launch(int32_t kernel, const DeviceArgument* arguments, int32_t columns, int32_t rows) override;
  Status finish() override;

 private:
  struct Bound {
    int32_t kernel = -1;
    WgpuHandle buffers[kMostBuffers] = {};
    WgpuHandle group = nullptr;
  };
  struct Read {
    void* data;
    uint64_t bytes, offset;  // in the staging memory
  };

  WgpuHandle encoder();
  void end_pass();
  void submit();
  WgpuHandle bind(int32_t kernel, const WgpuHandle* buffers, size_t count);
  // Staging memory of at least so many bytes; what it holds is lost when it grows.
  static void grow(const WebGpuDevice& device, WgpuHandle* buffer, uint64_t* size, uint64_t bytes,
                   uint64_t usage);
  void deliver();

  const WebGpuDevice& device_;
  const WgpuApi& api_;
  WgpuHandle encoder_ = nullptr, pass_ = nullptr, uniforms_ = nullptr;
  std::vector<uint8_t> numbers_;  // of the launches since the last submission
  uint32_t launches_ = 0;
  std::vector<Bound> bound_;
  WgpuHandle staging_ = nullptr, bounce_ = nullptr;
  uint64_t staging_bytes_ = 0, bounce_bytes_ = 0, read_bytes_ = 0;
  std::vector<Read> reads_;
};

WebGpuDevice::~WebGpuDevice() {
  for (const Pipeline& one : pipelines_) {
    if (one.layout != nullptr) api_.wgpuBindGroupLayoutRelease(one.layout);
    if (one.pipeline != nullptr) api_.wgpuComputePipelineRelease(one.pipeline);
  }
  if (queue_ != nullptr) api_.wgpuQueueRelease(queue_);
  if (device_ != nullptr) api_.wgpuDeviceRelease(device_);
  api_.wgpuAdapterRelease(adapter_);
  api_.wgpuInstanceRelease(instance_);
}

struct Opened {
  WgpuHandle device = nullptr;
  std::string message;
};

void on_device(uint32_t status, WgpuHandle device, WgpuText message, void* opened, void*) {
  if (status == kWgpuSuccess) static_cast<Opened*>(opened)->device = device;
  static_cast<Opened*>(opened)->message = text_of(message);
}

void on_error(const WgpuHandle*, uint32_t type, WgpuText message, void* complaint, void*) {
  static_cast<Complaint*>(complaint)->note(type, message);
}

Status WebGpuDevice::open() {
  limits_.next = nullptr;
  if (api_.wgpuAdapterGetLimits(adapter_, &limits_) != kWgpuSuccess) {
    return fail(FORERUN_DEVICE, "%s does not say its limits", name_.c_str());
  }
  WgpuDeviceDescriptor wanted{};
  wanted.label = wanted.queue.label = kNoLabel;
  wanted.limits = &limits_;
  wanted.lost.mode = kWgpuSpontaneous;
  wanted.error = {nullptr, on_error, &complaint_, nullptr};
  Opened opened;
  const WgpuCallback told{nullptr, kWgpuSpontaneous, reinterpret_cast<void (*)()>(on_device), &opened,
                          nullptr};
  api_.wgpuAdapterRequestDevice(adapter_, &wanted, told);
  device_ = opened.device;
  if (device_ == nullptr) {
    return fail(FORERUN_DEVICE, "%s cannot be opened: %s", name_.c_str(), opened.message.c_str());
  }
  queue_ = api_.wgpuDeviceGetQueue(device_);
  return FORERUN_OK;
}

Status WebGpuDevice::build(const forerun_device_program& program) {
  program_ = &program;
  pipelines_.resize(program.kernel_count);
  for (int32_t k = 0; k < program.kernel_count; ++k) {
    const forerun_device_kernel& kernel = program.kernels[k];
    const WgpuWgslSource source{nullptr, kWgpuWgslSourceType, {kernel.source, std::strlen(kernel.source)}};
    const WgpuPlain described{&source, kNoLabel};
    const WgpuHandle module = api_.wgpuDeviceCreateShaderModule(device_, &described);
    FORERUN_TRY(complaint());
    WgpuComputePipelineDescriptor wanted{};
    wanted.label = kNoLabel;
    wanted.module = module;
    wanted.entry = {kernel.name, std::strlen(kernel.name)};
    Pipeline& built = pipelines_[k];
    built.pipeline = api_.wgpuDeviceCreateComputePipeline(device_, &wanted);
    api_.wgpuShaderModuleRelease(module);
    FORERUN_TRY(complaint());
    built.layout = api_.wgpuComputePipelineGetBindGroupLayout(built.pipeline, 0);
  }
  return complaint();
}

Status WebGpuDevice::reserve(uint64_t bytes, const char* what, void** handle) {
  FORERUN_TRY(check_piece(*this, what, bytes, std::min(limits_.storage_binding_bytes, limits_.buffer_bytes)));
  *handle = make_buffer(whole_words(bytes), kWgpuStorage | kWgpuCopySource | kWgpuCopySink);
  return complaint();
}

Status WebGpuDevice::open_queue(std::unique_ptr<Queue>* queue) {
  auto* opened = new (std::nothrow) WebGpuQueue(*this);
  if (opened == nullptr) return fail(FORERUN_OUT_OF_MEMORY, "no memory for a queue");
  queue->reset(opened);
  return opened->open();
}

WebGpuQueue::~WebGpuQueue() {
  end_pass();
  if (encoder_ != nullptr) api_.wgpuCommandEncoderRelease(encoder_);
  api_.wgpuDevicePoll(device_.device(), 1, nullptr);
  for (const Bound& one : bound_) {
    if (one.group != nullptr) api_.wgpuBindGroupRelease(one.group);
  }
  for (WgpuHandle buffer : {uniforms_, staging_, bounce_}) {
    if (buffer != nullptr) api_.wgpuBufferRelease(buffer);
  }
}

Status WebGpuQueue::open() {
  uniforms_ = device_.make_buffer(kMostLaunches * kUniformStep, kWgpuUniform | kWgpuCopySink);
  numbers_.resize(kMostLaunches * kUniformStep);
  bound_.resize(kMostLaunches);
  return device_.complaint();
}

WgpuHandle WebGpuQueue::encoder() {
  if (encoder_ == nullptr) {
    const WgpuPlain plain{nullptr, kNoLabel};
    encoder_ = api_.wgpuDeviceCreateCommandEncoder(device_.device(), &plain);
  }
  return encoder_;
}

void WebGpuQueue::end_pass() {
  if (pass_ == nullptr) return;
  api_.wgpuComputePassEncoderEnd(pass_);
  api_.wgpuComputePassEncoderRelease(pass_);
  pass_ = nullptr;
}

void WebGpuQueue::submit() {
  if (encoder_ == nullptr) return;
  end_pass();
  if (launches_ > 0) {
    api_.wgpuQueueWriteBuffer(device_.queue(), uniforms_, 0, numbers_.data(), launches_ * kUniformStep);
  }
  const WgpuPlain plain{nullptr, kNoLabel};
  const WgpuHandle commands = api_.wgpuCommandEncoderFinish(encoder_, &plain);
  api_.wgpuQueueSubmit(device_.queue(), 1, &commands);
  api_.wgpuCommandBufferRelease(commands);
  api_.wgpuCommandEncoderRelease(encoder_);
  encoder_ = nullptr;
  launches_ = 0;
}

void WebGpuQueue::write(const DeviceBuffer& buffer, uint64_t offset, const void* data, uint64_t bytes) {
  if (bytes == 0) return;
  submit();  // what was told before comes before
  const uint64_t words = bytes / 4 * 4;
  api_.wgpuQueueWriteBuffer(device_.queue(), buffer.handle(), offset, data, words);
  if (words == bytes) return;
  uint32_t last = 0;
  std::memcpy(&last, static_cast<const uint8_t*>(data) + words, bytes - words);
  api_.wgpuQueueWriteBuffer(device_.queue(), buffer.handle(), offset + words, &last, sizeof last);
}

void WebGpuQueue::grow(const WebGpuDevice& device, WgpuHandle* buffer, uint64_t* size, uint64_t bytes,
                       uint64_t usage) {
  if (*size >= bytes) return;
  if (*buffer != nullptr) device.api().wgpuBufferRelease(*buffer);
  *size = std::max(bytes, 2 * *size);
  *buffer = device.make_buffer(*size, usage);
}

void WebGpuQueue::read(const DeviceBuffer& buffer, uint64_t offset, void* data, uint64_t bytes) {
  if (bytes == 0) return;
  if (read_bytes_ + bytes > staging_bytes_) {
    deliver();
    grow(device_, &staging_, &staging_bytes_, bytes, kWgpuMapRead | kWgpuCopySink);
  }
  end_pass();
  api_.wgpuCommandEncoderCopyBufferToBuffer(encoder(), buffer.handle(), offset, staging_, read_bytes_, bytes);
  reads_.push_back({data, bytes, read_bytes_});
  read_bytes_ += bytes;
}

void WebGpuQueue::copy(const DeviceBuffer& from, uint64_t source, const DeviceBuffer& to, uint64_t sink,
                       uint64_t bytes) {
  if (bytes == 0) return;
  end_pass();
  if (from.handle() != to.handle()) {
    api_.wgpuCommandEncoderCopyBufferToBuffer(encoder(), from.handle(), source, to.handle(), sink, bytes);
    return;
  }
  // Within one buffer nothing can be copied.
  if (bounce_bytes_ < bytes) submit();
  grow(device_, &bounce_, &bounce_bytes_, bytes, kWgpuCopySource | kWgpuCopySink);
  api_.wgpuCommandEncoderCopyBufferToBuffer(encoder(), from.handle(), source, bounce_, 0, bytes);
  api_.wgpuCommandEncoderCopyBufferToBuffer(encoder(), bounce_, 0, to.handle(), sink, bytes);
}

WgpuHandle WebGpuQueue::bind(int32_t kernel, const WgpuHandle* buffers, size_t count) {
  Bound& kept = bound_[launches_];
  if (kept.kernel == kernel && std::equal(buffers, buffers + count, kept.buffers)) return kept.group;
  if (kept.group != nullptr) api_.wgpuBindGroupRelease(kept.group);
  WgpuBindGroupEntry entries[kMostBuffers + 1] = {};
  for (size_t i = 0; i <= count; ++i) {
    entries[i].binding = static_cast<uint32_t>(i);
    entries[i].buffer = i < count ? buffers[i] : uniforms_;
    entries[i].offset = i < count ? 0 : launches_ * kUniformStep;
    entries[i].size = i < count ? UINT64_MAX : kUniformStep;
  }
  const WgpuBindGroupDescriptor wanted{nullptr, kNoLabel, device_.pipeline(kernel).layout, count + 1,
                                       entries};
  kept.kernel = kernel;
  std::copy_n(buffers, count, kept.buffers);
  kept.group = api_.wgpuDeviceCreateBindGroup(device_.device(), &wanted);
  return kept.group;
}

void WebGpuQueue::launch(int32_t kernel, const DeviceArgument* arguments, int32_t columns, int32_t rows) {
  if (launches_ == kMostLaunches) submit();
  const int32_t taken = device_.program().kernels[kernel].argument_count;
  WgpuHandle buffers[kMostBuffers];
  size_t buffer_count = 0;
  auto* number = reinterpret_cast<int32_t*>(numbers_.data() + launches_ * kUniformStep);
  for (int32_t i = 0; i < taken; ++i) {
    if (arguments[i].buffer == nullptr) {
      *number++ = arguments[i].number;
    } else if (buffer_count < kMostBuffers) {
      buffers[buffer_count++] = arguments[i].buffer;
    }
  }
  *number = columns - 1;  // the last workgroup along x, as the sources want it
  const WgpuHandle group = bind(kernel, buffers, buffer_count);
  if (pass_ == nullptr) {
    const WgpuComputePass plain{nullptr, kNoLabel, nullptr};
    pass_ = api_.wgpuCommandEncoderBeginComputePass(encoder(), &plain);
  }
  api_.wgpuComputePassEncoderSetPipeline(pass_, device_.pipeline(kernel).pipeline);
  api_.wgpuComputePassEncoderSetBindGroup(pass_, 0, group, 0, nullptr);
  api_.wgpuComputePassEncoderDispatchWorkgroups(pass_, static_cast<uint32_t>(columns),
                                                static_cast<uint32_t>(rows), 1);
  ++launches_;
}

// Waits for what was submitted and brings what was read to where it goes.
void WebGpuQueue::deliver() {
  submit();
  if (reads_.empty()) {
    api_.wgpuDevicePoll(device_.device(), 1, nullptr);
    return;
  }
  std::atomic<uint32_t> mapped{0};
  const auto on_mapped = [](uint32_t status, WgpuText, void* told, void*) {
    static_cast<std::atomic<uint32_t>*>(told)->store(status);
  };
  using OnMapped = void (*)(uint32_t, WgpuText, void*, void*);
  const WgpuCallback callback{nullptr, kWgpuSpontaneous,
                              reinterpret_cast<void (*)()>(static_cast<OnMapped>(on_mapped)), &mapped,
                              nullptr};
  api_.wgpuBufferMapAsync(staging_, kWgpuMapRead, 0, read_bytes_, callback);
  while (mapped.load() == 0) api_.wgpuDevicePoll(device_.device(), 1, nullptr);
  if (mapped.load() == kWgpuSuccess) {
    const auto* data =
        static_cast<const uint8_t*>(api_.wgpuBufferGetConstMappedRange(staging_, 0, read_bytes_));
    for (const Read& one : reads_) std::memcpy(one.data, data + one.offset, one.bytes);
    api_.wgpuBufferUnmap(staging_);
  }
  reads_.clear();
  read_bytes_ = 0;
}

Status WebGpuQueue::finish() {
  deliver();
  return device_.complaint();
}

}  // namespace

Status find_webgpu(std::unique_ptr<Device>* device) {
  const WgpuApi* api = nullptr;
  FORERUN_TRY(load_webgpu(&api));
  WgpuInstanceExtras extras{};
  extras.type = kWgpuInstanceExtrasType;
  extras.backends = kWgpuUsableBackends;
  const WgpuInstance described{&extras, 0, nullptr, nullptr};
  const WgpuHandle instance = api->wgpuCreateInstance(&described);
  if (instance == nullptr) return fail(FORERUN_DEVICE, "wgpu-native does not start");
  const WgpuAdapterOptions usable{nullptr, kWgpuUsableBackends};
  std::vector<WgpuHandle> adapters(api->wgpuInstanceEnumerateAdapters(instance, &usable, nullptr));
  api->wgpuInstanceEnumerateAdapters(instance, &usable, adapters.data());
  std::vector<DeviceChoice> found;
  for (WgpuHandle adapter : adapters) {
    WgpuAdapterInfo info{};
    api->wgpuAdapterGetInfo(adapter, &info);
    const int rank = info.type == kWgpuDiscreteGpu ? 0 : info.type == kWgpuIntegratedGpu ? 1 : 2;
    found.push_back({adapter, text_of(info.device), rank});
    api->wgpuAdapterInfoFreeMembers(info);
  }
  const DeviceChoice* chosen = nullptr;
  const Status status = choose_device("WebGPU", found, &chosen);
  for (WgpuHandle adapter : adapters) {
    if (chosen == nullptr || adapter != chosen->handle) api->wgpuAdapterRelease(adapter);
  }
  auto* opened = chosen == nullptr ? nullptr
                                   : new (std::nothrow)
                                         WebGpuDevice(*api, instance, chosen->handle, chosen->name);
  if (opened == nullptr) {
    if (chosen != nullptr) api->wgpuAdapterRelease(chosen->handle);
    api->wgpuInstanceRelease(instance);
    return status != FORERUN_OK ? status : fail(FORERUN_OUT_OF_MEMORY, "no memory for a device");
  }
  device->reset(opened);
  return opened->open();
}

}  // namespace forerun
