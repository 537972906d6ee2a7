// What the core uses of OpenCL 1.2, loaded from the system's library.
#ifndef FORERUN_DEVICE_OPENCL_API_H
#define FORERUN_DEVICE_OPENCL_API_H

#include <cstddef>
#include <cstdint>

#include "status.h"

namespace forerun {

using ClHandle = void*;

struct ClImageFormat {
  uint32_t order, type;
};

struct ClImageShape {
  uint32_t kind;
  size_t width, height, depth, array_size, row_pitch, slice_pitch;
  uint32_t mip_levels, samples;
  ClHandle memory;
};

// Names and numbers as in the standard's CL/cl.h.
struct OpenClApi {
  int32_t (*clGetPlatformIDs)(uint32_t, ClHandle*, uint32_t*);
  int32_t (*clGetDeviceIDs)(ClHandle, uint64_t, uint32_t, ClHandle*, uint32_t*);
  int32_t (*clGetDeviceInfo)(ClHandle, uint32_t, size_t, void*, size_t*);
  ClHandle (*clCreateContext)(const intptr_t*, uint32_t, const ClHandle*,
                              void (*)(const char*, const void*, size_t, void*), void*, int32_t*);
  int32_t (*clReleaseContext)(ClHandle);
  ClHandle (*clCreateCommandQueue)(ClHandle, ClHandle, uint64_t, int32_t*);
  int32_t (*clReleaseCommandQueue)(ClHandle);
  ClHandle (*clCreateBuffer)(ClHandle, uint64_t, size_t, void*, int32_t*);
  ClHandle (*clCreateImage)(ClHandle, uint64_t, const ClImageFormat*, const ClImageShape*, void*, int32_t*);
  int32_t (*clReleaseMemObject)(ClHandle);
  ClHandle (*clCreateProgramWithSource)(ClHandle, uint32_t, const char**, const size_t*, int32_t*);
  int32_t (*clBuildProgram)(ClHandle, uint32_t, const ClHandle*, const char*, void (*)(ClHandle, void*),
                            void*);
  int32_t (*clGetProgramBuildInfo)(ClHandle, ClHandle, uint32_t, size_t, void*, size_t*);
  int32_t (*clReleaseProgram)(ClHandle);
  ClHandle (*clCreateKernel)(ClHandle, const char*, int32_t*);
  int32_t (*clReleaseKernel)(ClHandle);
  int32_t (*clSetKernelArg)(ClHandle, uint32_t, size_t, const void*);
  int32_t (*clGetKernelWorkGroupInfo)(ClHandle, ClHandle, uint32_t, size_t, void*, size_t*);
  int32_t (*clEnqueueNDRangeKernel)(ClHandle, ClHandle, uint32_t, const size_t*, const size_t*, const size_t*,
                                    uint32_t, const ClHandle*, ClHandle*);
  int32_t (*clEnqueueWriteBuffer)(ClHandle, ClHandle, uint32_t, size_t, size_t, const void*, uint32_t,
                                  const ClHandle*, ClHandle*);
  int32_t (*clEnqueueReadBuffer)(ClHandle, ClHandle, uint32_t, size_t, size_t, void*, uint32_t,
                                 const ClHandle*, ClHandle*);
  int32_t (*clEnqueueCopyBuffer)(ClHandle, ClHandle, ClHandle, size_t, size_t, size_t, uint32_t,
                                 const ClHandle*, ClHandle*);
  int32_t (*clFinish)(ClHandle);
};

constexpr uint64_t kClDeviceCpu = 1 << 1, kClDeviceGpu = 1 << 2, kClDeviceAny = 0xFFFFFFFF;
constexpr uint32_t kClDeviceType = 0x1000;
constexpr uint32_t kClDeviceMaxWorkGroupSize = 0x1004, kClDeviceMaxMemAllocSize = 0x1010;
constexpr uint32_t kClDeviceLocalMemSize = 0x1023, kClDeviceName = 0x102B, kClDeviceVersion = 0x102F;
constexpr uint32_t kClProgramBuildLog = 0x1183, kClKernelWorkGroupSize = 0x11B0;
constexpr uint32_t kClDeviceImageSupport = 0x1016, kClDeviceImageMaxBufferSize = 0x1040;
constexpr uint32_t kClRed = 0x10B0, kClUnsignedInt32 = 0x10DC, kClImage1dBuffer = 0x10F6;
constexpr uint64_t kClMemReadWrite = 1, kClMemReadOnly = 4;
constexpr int32_t kClMemObjectAllocationFailure = -4, kClOutOfResources = -5;
constexpr int32_t kClBuildProgramFailure = -11;

// The system's OpenCL, loaded once and kept; fails where there is none.
Status load_opencl(const OpenClApi** api);

}  // namespace forerun

#endif
