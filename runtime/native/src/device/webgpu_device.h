// A device of wgpu-native's with the pipelines of one program, as its queues see it.
#ifndef FORERUN_DEVICE_WEBGPU_DEVICE_H
#define FORERUN_DEVICE_WEBGPU_DEVICE_H

#include <atomic>
#include <cstring>
#include <string>
#include <vector>

#include "device/device.h"
#include "device/webgpu_api.h"

namespace forerun {

constexpr WgpuText kNoLabel{nullptr, kWgpuZeroTerminated};

inline std::string text_of(WgpuText text) {
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
  void complain(WgpuText message) const { complaint_.note(0, message); }
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
  mutable Complaint complaint_;
};

// A queue of the device's.
Status open_webgpu_queue(const WebGpuDevice& device, std::unique_ptr<Queue>* queue);

}  // namespace forerun

#endif
