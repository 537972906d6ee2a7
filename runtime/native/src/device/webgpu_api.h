// What the core uses of WebGPU's C interface (webgpu.h) as wgpu-native has it, loaded from its library.
//
// Names, members and numbers are those of the header that goes with version kWgpuMajor of wgpu-native; its
// structures change from version to version, so a library of another one is refused.
#ifndef FORERUN_DEVICE_WEBGPU_API_H
#define FORERUN_DEVICE_WEBGPU_API_H

#include <cstddef>
#include <cstdint>

#include "status.h"

namespace forerun {

constexpr uint32_t kWgpuMajor = 29;

using WgpuHandle = void*;

struct WgpuText {
  const char* data;
  size_t length;
};

constexpr size_t kWgpuZeroTerminated = SIZE_MAX;

// Of several descriptors that hold no more than a label.
struct WgpuPlain {
  const void* next;
  WgpuText label;
};

struct WgpuComputePass {
  const void* next;
  WgpuText label;
  const void* timestamps;
};

struct WgpuBufferDescriptor {
  const void* next;
  WgpuText label;
  uint64_t usage;
  uint64_t size;
  uint32_t mapped;
};

struct WgpuBindGroupEntry {
  const void* next;
  uint32_t binding;
  WgpuHandle buffer;
  uint64_t offset;
  uint64_t size;
  WgpuHandle sampler;
  WgpuHandle texture;
};

struct WgpuBindGroupDescriptor {
  const void* next;
  WgpuText label;
  WgpuHandle layout;
  size_t entry_count;
  const WgpuBindGroupEntry* entries;
};

struct WgpuWgslSource {
  const void* next;
  uint32_t type;
  WgpuText code;
};

struct WgpuComputePipelineDescriptor {
  const void* next;
  WgpuText label;
  WgpuHandle layout;
  const void* stage_next;
  WgpuHandle module;
  WgpuText entry;
  size_t constant_count;
  const void* constants;
};

struct WgpuLimits {
  const void* next;
  uint32_t before_storage_buffers[11];
  uint32_t storage_buffers, storage_textures, uniform_buffers;
  uint64_t uniform_binding_bytes, storage_binding_bytes;
  uint32_t uniform_alignment, storage_alignment, vertex_buffers;
  uint64_t buffer_bytes;
  uint32_t before_workgroups[5];
  uint32_t workgroup_bytes, workgroup_threads, workgroup_x, workgroup_y, workgroup_z, workgroups,
      immediate_bytes;
};

struct WgpuCallback {
  const void* next;
  uint32_t mode;
  void (*function)();
  void* first;
  void* second;
};

struct WgpuErrorCallback {
  const void* next;
  void (*function)(const WgpuHandle*, uint32_t, WgpuText, void*, void*);
  void* first;
  void* second;
};

struct WgpuDeviceDescriptor {
  const void* next;
  WgpuText label;
  size_t feature_count;
  const void* features;
  const WgpuLimits* limits;
  WgpuPlain queue;
  WgpuCallback lost;
  WgpuErrorCallback error;
};

struct WgpuAdapterInfo {
  const void* next;
  WgpuText vendor, architecture, device, description;
  uint32_t backend, type, vendor_id, device_id, subgroup_least, subgroup_most;
};

struct WgpuAdapterOptions {
  const void* next;
  uint64_t backends;
};

struct WgpuInstance {
  const void* next;
  size_t feature_count;
  const void* features;
  const void* limits;
};

// wgpu-native's own; of what follows the flags zeros are the defaults.
struct WgpuInstanceExtras {
  const void* next;
  uint32_t type;
  uint64_t backends;
  uint64_t flags;
  uint64_t rest[16];
};

struct WgpuFuture {
  uint64_t id;
};

struct WgpuApi {
  uint32_t (*wgpuGetVersion)();
  WgpuHandle (*wgpuCreateInstance)(const void*);
  size_t (*wgpuInstanceEnumerateAdapters)(WgpuHandle, const void*, WgpuHandle*);
  uint32_t (*wgpuAdapterGetInfo)(WgpuHandle, WgpuAdapterInfo*);
  void (*wgpuAdapterInfoFreeMembers)(WgpuAdapterInfo);
  uint32_t (*wgpuAdapterGetLimits)(WgpuHandle, WgpuLimits*);
  WgpuFuture (*wgpuAdapterRequestDevice)(WgpuHandle, const WgpuDeviceDescriptor*, WgpuCallback);
  WgpuHandle (*wgpuDeviceGetQueue)(WgpuHandle);
  WgpuHandle (*wgpuDeviceCreateBuffer)(WgpuHandle, const WgpuBufferDescriptor*);
  WgpuHandle (*wgpuDeviceCreateShaderModule)(WgpuHandle, const WgpuPlain*);
  WgpuHandle (*wgpuDeviceCreateComputePipeline)(WgpuHandle, const WgpuComputePipelineDescriptor*);
  WgpuHandle (*wgpuComputePipelineGetBindGroupLayout)(WgpuHandle, uint32_t);
  WgpuHandle (*wgpuDeviceCreateBindGroup)(WgpuHandle, const WgpuBindGroupDescriptor*);
  WgpuHandle (*wgpuDeviceCreateCommandEncoder)(WgpuHandle, const WgpuPlain*);
  WgpuHandle (*wgpuCommandEncoderBeginComputePass)(WgpuHandle, const WgpuComputePass*);
  void (*wgpuComputePassEncoderSetPipeline)(WgpuHandle, WgpuHandle);
  void (*wgpuComputePassEncoderSetBindGroup)(WgpuHandle, uint32_t, WgpuHandle, size_t, const uint32_t*);
  void (*wgpuComputePassEncoderDispatchWorkgroups)(WgpuHandle, uint32_t, uint32_t, uint32_t);
  void (*wgpuComputePassEncoderEnd)(WgpuHandle);
  void (*wgpuCommandEncoderCopyBufferToBuffer)(WgpuHandle, WgpuHandle, uint64_t, WgpuHandle, uint64_t,
                                               uint64_t);
  WgpuHandle (*wgpuCommandEncoderFinish)(WgpuHandle, const WgpuPlain*);
  void (*wgpuQueueSubmit)(WgpuHandle, size_t, const WgpuHandle*);
  void (*wgpuQueueWriteBuffer)(WgpuHandle, WgpuHandle, uint64_t, const void*, size_t);
  WgpuFuture (*wgpuBufferMapAsync)(WgpuHandle, uint64_t, size_t, size_t, WgpuCallback);
  const void* (*wgpuBufferGetConstMappedRange)(WgpuHandle, size_t, size_t);
  void (*wgpuBufferUnmap)(WgpuHandle);
  uint32_t (*wgpuDevicePoll)(WgpuHandle, uint32_t, const uint64_t*);
  void (*wgpuInstanceRelease)(WgpuHandle);
  void (*wgpuAdapterRelease)(WgpuHandle);
  void (*wgpuDeviceRelease)(WgpuHandle);
  void (*wgpuQueueRelease)(WgpuHandle);
  void (*wgpuBufferRelease)(WgpuHandle);
  void (*wgpuShaderModuleRelease)(WgpuHandle);
  void (*wgpuComputePipelineRelease)(WgpuHandle);
  void (*wgpuBindGroupLayoutRelease)(WgpuHandle);
  void (*wgpuBindGroupRelease)(WgpuHandle);
  void (*wgpuCommandEncoderRelease)(WgpuHandle);
  void (*wgpuComputePassEncoderRelease)(WgpuHandle);
  void (*wgpuCommandBufferRelease)(WgpuHandle);
};

constexpr uint64_t kWgpuMapRead = 1, kWgpuCopySource = 4, kWgpuCopySink = 8, kWgpuUniform = 0x40;
constexpr uint64_t kWgpuStorage = 0x80;
constexpr uint32_t kWgpuWgslSourceType = 2, kWgpuSuccess = 1, kWgpuSpontaneous = 3;
constexpr uint32_t kWgpuDiscreteGpu = 1, kWgpuIntegratedGpu = 2, kWgpuCpu = 3, kWgpuOutOfMemory = 3;
constexpr uint32_t kWgpuInstanceExtrasType = 0x00030004;
// Vulkan, Metal and D3D12: OpenGL lacks limits that the kernels need.
constexpr uint64_t kWgpuUsableBackends = 1 << 0 | 1 << 2 | 1 << 3;

// wgpu-native, loaded once and kept: the library that the environment variable FORERUN_WGPU names, or the
// system's; fails where there is none.
Status load_webgpu(const WgpuApi** api);

}  // namespace forerun

#endif
