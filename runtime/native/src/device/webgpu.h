// WebGPU devices through wgpu-native: Vulkan, Metal or D3D12, whatever the system has.
#ifndef FORERUN_DEVICE_WEBGPU_H
#define FORERUN_DEVICE_WEBGPU_H

#include "device/device.h"

namespace forerun {

// Finds a GPU if there is one, else another device; FORERUN_DEVICE as for OpenCL.
Status find_webgpu(std::unique_ptr<Device>* device);

}  // namespace forerun

#endif
