#include "device/webgpu.h"

#include <algorithm>
#include <new>

#include "device/choice.h"
#include "device/webgpu_device.h"

namespace forerun {
namespace {

constexpr uint64_t whole_words(uint64_t bytes) {
  return (bytes + 3) / 4 * 4;
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

void on_lost(const WgpuHandle*, uint32_t, WgpuText message, void* complaint, void*) {
  const std::string said = "it was lost: " + text_of(message);
  static_cast<Complaint*>(complaint)->note(0, {said.data(), said.size()});
}

}  // namespace

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

Status WebGpuDevice::open() {
  limits_.next = nullptr;
  if (api_.wgpuAdapterGetLimits(adapter_, &limits_) != kWgpuSuccess) {
    return fail(FORERUN_DEVICE, "%s does not say its limits", name_.c_str());
  }
  WgpuDeviceDescriptor wanted{};
  wanted.label = wanted.queue.label = kNoLabel;
  wanted.limits = &limits_;
  wanted.lost = {nullptr, kWgpuSpontaneous, reinterpret_cast<void (*)()>(on_lost), &complaint_, nullptr};
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
  return open_webgpu_queue(*this, queue);
}

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
