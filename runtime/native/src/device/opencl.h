// OpenCL devices. The system's library is loaded when the first is asked for: the core does not need it.
#ifndef FORERUN_DEVICE_OPENCL_H
#define FORERUN_DEVICE_OPENCL_H

#include "device/device.h"

namespace forerun {

// Finds a GPU if there is one, else another device. FORERUN_DEVICE in the environment, part of a device's
// name, chooses among several.
Status find_opencl(std::unique_ptr<Device>* device);

}  // namespace forerun

#endif
