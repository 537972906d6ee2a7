#include "device/webgpu_api.h"

#include <cstdlib>

#include "device/library.h"

namespace forerun {
namespace {

// In the order of the members of WgpuApi, which are pointers to functions all.
constexpr const char* kNames[] = {"wgpuGetVersion",
                                  "wgpuCreateInstance",
                                  "wgpuInstanceEnumerateAdapters",
                                  "wgpuAdapterGetInfo",
                                  "wgpuAdapterInfoFreeMembers",
                                  "wgpuAdapterGetLimits",
                                  "wgpuAdapterRequestDevice",
                                  "wgpuDeviceGetQueue",
                                  "wgpuDeviceCreateBuffer",
                                  "wgpuDeviceCreateShaderModule",
                                  "wgpuDeviceCreateComputePipeline",
                                  "wgpuComputePipelineGetBindGroupLayout",
                                  "wgpuDeviceCreateBindGroup",
                                  "wgpuDeviceCreateCommandEncoder",
                                  "wgpuCommandEncoderBeginComputePass",
                                  "wgpuComputePassEncoderSetPipeline",
                                  "wgpuComputePassEncoderSetBindGroup",
                                  "wgpuComputePassEncoderDispatchWorkgroups",
                                  "wgpuComputePassEncoderEnd",
                                  "wgpuCommandEncoderCopyBufferToBuffer",
                                  "wgpuCommandEncoderFinish",
                                  "wgpuQueueSubmit",
                                  "wgpuQueueWriteBuffer",
                                  "wgpuBufferMapAsync",
                                  "wgpuBufferGetConstMappedRange",
                                  "wgpuBufferUnmap",
                                  "wgpuDevicePoll",
                                  "wgpuInstanceRelease",
                                  "wgpuAdapterRelease",
                                  "wgpuDeviceRelease",
                                  "wgpuQueueRelease",
                                  "wgpuBufferRelease",
                                  "wgpuShaderModuleRelease",
                                  "wgpuComputePipelineRelease",
                                  "wgpuBindGroupLayoutRelease",
                                  "wgpuBindGroupRelease",
                                  "wgpuCommandEncoderRelease",
                                  "wgpuComputePassEncoderRelease",
                                  "wgpuCommandBufferRelease"};
constexpr size_t kFunctions = sizeof kNames / sizeof *kNames;
static_assert(sizeof(WgpuApi) == kFunctions * sizeof(void*), "a name for each function");

struct Loaded {
  union {
    WgpuApi api;
    void* functions[kFunctions];
  };
  const char* missing;  // nullptr: all is there
};

Loaded load() {
  Loaded loaded{};
  const char* const given = std::getenv("FORERUN_WGPU");
  const char* const libraries[] = {given != nullptr ? given : "libwgpu_native.so", "libwgpu_native.so"};
  loaded.missing = load_functions(libraries, 2, kNames, kFunctions, loaded.functions);
  return loaded;
}

}  // namespace

Status load_webgpu(const WgpuApi** api) {
  static const Loaded loaded = load();
  *api = &loaded.api;
  if (loaded.missing != nullptr) {
    return fail(
        FORERUN_DEVICE,
        "WebGPU is not there: %s was not found; install wgpu-native (pip install wgpu brings it), name its "
        "library in FORERUN_WGPU, or compile the bundle for the CPU",
        loaded.missing);
  }
  const uint32_t major = loaded.api.wgpuGetVersion() >> 24;
  if (major == kWgpuMajor) return FORERUN_OK;
  return fail(FORERUN_DEVICE,
              "wgpu-native is of version %u; this forerun needs version %u (pip install wgpu==0.32.0)", major,
              kWgpuMajor);
}

}  // namespace forerun
