#include <algorithm>
#include <new>

#include "device/webgpu_device.h"

namespace forerun {
namespace {

constexpr uint32_t kUniformStep = 256;    // every device lets uniforms begin at multiples of it
constexpr uint32_t kMostLaunches = 1024;  // of one submission
constexpr size_t kMostBuffers = 8;        // of one kernel, the least that devices have

struct Mapped {
  const WebGpuDevice* device;
  std::atomic<uint32_t> status;
};

// A device that was lost maps nothing, and may say so only here.
void on_mapped(uint32_t status, WgpuText message, void* told, void*) {
  auto* mapped = static_cast<Mapped*>(told);
  if (status != kWgpuSuccess) {
    const bool says = message.data != nullptr && message.length != 0;
    mapped->device->complain(says ? message : WgpuText{"its memory cannot be read", kWgpuZeroTerminated});
  }
  mapped->status.store(status);
}

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
  if (device_.complaint() != FORERUN_OK) {
    // wgpu-native ends the process when it is given work for a device that was lost.
    api_.wgpuCommandEncoderRelease(encoder_);
    encoder_ = nullptr;
    launches_ = 0;
    return;
  }
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
  const uint64_t wanted = read_bytes_ + bytes;
  if (wanted > staging_bytes_) {
    deliver();
    grow(device_, &staging_, &staging_bytes_, wanted, kWgpuMapRead | kWgpuCopySink);
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
  Mapped mapped{&device_, {0}};
  const WgpuCallback callback{nullptr, kWgpuSpontaneous, reinterpret_cast<void (*)()>(on_mapped), &mapped,
                              nullptr};
  api_.wgpuBufferMapAsync(staging_, kWgpuMapRead, 0, read_bytes_, callback);
  while (mapped.status.load() == 0) api_.wgpuDevicePoll(device_.device(), 1, nullptr);
  if (mapped.status.load() == kWgpuSuccess) {
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

Status open_webgpu_queue(const WebGpuDevice& device, std::unique_ptr<Queue>* queue) {
  auto* opened = new (std::nothrow) WebGpuQueue(device);
  if (opened == nullptr) return fail(FORERUN_OUT_OF_MEMORY, "no memory for a queue");
  queue->reset(opened);
  return opened->open();
}

}  // namespace forerun
