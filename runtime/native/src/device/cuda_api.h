// What the core uses of CUDA's driver interface (cuda.h), loaded from the driver's library.
#ifndef FORERUN_DEVICE_CUDA_API_H
#define FORERUN_DEVICE_CUDA_API_H

#include <cstddef>
#include <cstdint>

#include "status.h"

namespace forerun {

using CudaHandle = void*;
using CudaAddress = uint64_t;  // of device memory

// Names and numbers as in cuda.h; where a function has versions, that of CUDA 11.4 and later.
struct CudaApi {
  int32_t (*cuInit)(uint32_t);
  int32_t (*cuDeviceGetCount)(int32_t*);
  int32_t (*cuDeviceGet)(int32_t*, int32_t);
  int32_t (*cuDeviceGetName)(char*, int32_t, int32_t);
  int32_t (*cuDeviceGetAttribute)(int32_t*, int32_t, int32_t);
  int32_t (*cuDevicePrimaryCtxRetain)(CudaHandle*, int32_t);
  int32_t (*cuDevicePrimaryCtxRelease_v2)(int32_t);
  int32_t (*cuCtxSetCurrent)(CudaHandle);
  int32_t (*cuModuleLoadData)(CudaHandle*, const void*);
  int32_t (*cuModuleUnload)(CudaHandle);
  int32_t (*cuModuleGetFunction)(CudaHandle*, CudaHandle, const char*);
  int32_t (*cuMemAlloc_v2)(CudaAddress*, size_t);
  int32_t (*cuMemFree_v2)(CudaAddress);
  int32_t (*cuMemHostAlloc)(void**, size_t, uint32_t);
  int32_t (*cuMemFreeHost)(void*);
  int32_t (*cuStreamCreate)(CudaHandle*, uint32_t);
  int32_t (*cuStreamDestroy_v2)(CudaHandle);
  int32_t (*cuStreamSynchronize)(CudaHandle);
  int32_t (*cuMemcpyHtoDAsync_v2)(CudaAddress, const void*, size_t, CudaHandle);
  int32_t (*cuMemcpyDtoHAsync_v2)(void*, CudaAddress, size_t, CudaHandle);
  int32_t (*cuMemcpyDtoDAsync_v2)(CudaAddress, CudaAddress, size_t, CudaHandle);
  int32_t (*cuLaunchKernel)(CudaHandle, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t,
                            CudaHandle, void**, void**);
  int32_t (*cuStreamBeginCapture_v2)(CudaHandle, int32_t);
  int32_t (*cuStreamEndCapture)(CudaHandle, CudaHandle*);
  int32_t (*cuGraphInstantiateWithFlags)(CudaHandle*, CudaHandle, uint64_t);
  int32_t (*cuGraphLaunch)(CudaHandle, CudaHandle);
  int32_t (*cuGraphExecDestroy)(CudaHandle);
  int32_t (*cuGraphDestroy)(CudaHandle);
  int32_t (*cuGetErrorString)(int32_t, const char**);
};

constexpr int32_t kCudaOutOfMemory = 2, kCudaNoDevice = 100, kCudaNoBinaryForGpu = 209;
constexpr int32_t kCudaMajor = 75, kCudaMinor = 76;  // attributes: the compute capability
constexpr uint32_t kCudaNonBlocking = 1;
constexpr int32_t kCudaCaptureThread = 1;  // other threads may do what capturing forbids

// The driver, loaded and started once and kept; fails where there is none.
Status load_cuda(const CudaApi** api);

}  // namespace forerun

#endif
