// NVIDIA GPUs by CUDA's driver interface, loaded when the first is asked for. Emulated only: it has run on
// none yet.
#ifndef FORERUN_DEVICE_CUDA_H
#define FORERUN_DEVICE_CUDA_H

#include "device/device.h"

namespace forerun {

// Finds the first GPU, or with FORERUN_DEVICE in the environment the first that has it in its name.
Status find_cuda(std::unique_ptr<Device>* device);

}  // namespace forerun

#endif
