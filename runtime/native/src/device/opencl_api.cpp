#include "device/opencl_api.h"

#include "device/library.h"

namespace forerun {
namespace {

// In the order of the members of OpenClApi, which are pointers to functions all.
constexpr const char* kNames[] = {"clGetPlatformIDs",
                                  "clGetDeviceIDs",
                                  "clGetDeviceInfo",
                                  "clCreateContext",
                                  "clReleaseContext",
                                  "clCreateCommandQueue",
                                  "clReleaseCommandQueue",
                                  "clCreateBuffer",
                                  "clCreateImage",
                                  "clReleaseMemObject",
                                  "clCreateProgramWithSource",
                                  "clBuildProgram",
                                  "clGetProgramBuildInfo",
                                  "clReleaseProgram",
                                  "clCreateKernel",
                                  "clReleaseKernel",
                                  "clSetKernelArg",
                                  "clGetKernelWorkGroupInfo",
                                  "clEnqueueNDRangeKernel",
                                  "clEnqueueWriteBuffer",
                                  "clEnqueueReadBuffer",
                                  "clEnqueueCopyBuffer",
                                  "clFinish"};
constexpr size_t kFunctions = sizeof kNames / sizeof *kNames;
static_assert(sizeof(OpenClApi) == kFunctions * sizeof(void*), "a name for each function");

// Linux, and Android's two ways.
constexpr const char* kLibraries[] = {"libOpenCL.so.1", "libOpenCL.so", "/vendor/lib64/libOpenCL.so"};

struct Loaded {
  union {
    OpenClApi api;
    void* functions[kFunctions];
  };
  const char* missing;  // nullptr: all is there
};

Loaded load() {
  Loaded loaded{};
  loaded.missing = load_functions(kLibraries, sizeof kLibraries / sizeof *kLibraries, kNames, kFunctions,
                                  loaded.functions);
  return loaded;
}

}  // namespace

Status load_opencl(const OpenClApi** api) {
  static const Loaded loaded = load();
  *api = &loaded.api;
  if (loaded.missing == nullptr) return FORERUN_OK;
  return fail(
      FORERUN_DEVICE,
      "OpenCL is not there: %s was not found; install the device's driver, or PoCL to run on the CPU, or "
      "compile the bundle for the CPU",
      loaded.missing);
}

}  // namespace forerun
