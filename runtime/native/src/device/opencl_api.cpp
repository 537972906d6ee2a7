#include "device/opencl_api.h"

#ifndef __wasm__
#include <dlfcn.h>
#endif

namespace forerun {
namespace {

#ifndef __wasm__

// In the order of the members of OpenClApi, which are pointers to functions all.
constexpr const char* kNames[] = {"clGetPlatformIDs",         "clGetDeviceIDs",
                                  "clGetDeviceInfo",          "clCreateContext",
                                  "clReleaseContext",         "clCreateCommandQueue",
                                  "clReleaseCommandQueue",    "clCreateBuffer",
                                  "clReleaseMemObject",       "clCreateProgramWithSource",
                                  "clBuildProgram",           "clGetProgramBuildInfo",
                                  "clReleaseProgram",         "clCreateKernel",
                                  "clReleaseKernel",          "clSetKernelArg",
                                  "clGetKernelWorkGroupInfo", "clEnqueueNDRangeKernel",
                                  "clEnqueueWriteBuffer",     "clEnqueueReadBuffer",
                                  "clEnqueueCopyBuffer",      "clFinish"};
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
  void* library = nullptr;
  for (const char* name : kLibraries) {
    if (library == nullptr) library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
  }
  loaded.missing = library == nullptr ? kLibraries[0] : nullptr;
  for (size_t i = 0; i < kFunctions && loaded.missing == nullptr; ++i) {
    loaded.functions[i] = dlsym(library, kNames[i]);
    if (loaded.functions[i] == nullptr) loaded.missing = kNames[i];
  }
  return loaded;
}

#endif

}  // namespace

Status load_opencl(const OpenClApi** api) {
#ifdef __wasm__
  (void)api;
  return fail(FORERUN_DEVICE, "there is no OpenCL in WebAssembly");
#else
  static const Loaded loaded = load();
  *api = &loaded.api;
  if (loaded.missing == nullptr) return FORERUN_OK;
  return fail(
      FORERUN_DEVICE,
      "OpenCL is not there: %s was not found; install the device's driver, or PoCL to run on the CPU, or "
      "compile the bundle for the CPU",
      loaded.missing);
#endif
}

}  // namespace forerun
