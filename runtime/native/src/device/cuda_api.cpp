#include "device/cuda_api.h"

#include "device/library.h"

namespace forerun {
namespace {

// In the order of the members of CudaApi, which are pointers to functions all.
constexpr const char* kNames[] = {"cuInit",
                                  "cuDeviceGetCount",
                                  "cuDeviceGet",
                                  "cuDeviceGetName",
                                  "cuDeviceGetAttribute",
                                  "cuDevicePrimaryCtxRetain",
                                  "cuDevicePrimaryCtxRelease_v2",
                                  "cuCtxSetCurrent",
                                  "cuModuleLoadData",
                                  "cuModuleUnload",
                                  "cuModuleGetFunction",
                                  "cuMemAlloc_v2",
                                  "cuMemFree_v2",
                                  "cuMemHostAlloc",
                                  "cuMemFreeHost",
                                  "cuStreamCreate",
                                  "cuStreamDestroy_v2",
                                  "cuStreamSynchronize",
                                  "cuMemcpyHtoDAsync_v2",
                                  "cuMemcpyDtoHAsync_v2",
                                  "cuMemcpyDtoDAsync_v2",
                                  "cuLaunchKernel",
                                  "cuStreamBeginCapture_v2",
                                  "cuStreamEndCapture",
                                  "cuGraphInstantiateWithFlags",
                                  "cuGraphLaunch",
                                  "cuGraphExecDestroy",
                                  "cuGraphDestroy",
                                  "cuGetErrorString"};
constexpr size_t kFunctions = sizeof kNames / sizeof *kNames;
static_assert(sizeof(CudaApi) == kFunctions * sizeof(void*), "a name for each function");

constexpr const char* kLibraries[] = {"libcuda.so.1", "libcuda.so"};

struct Loaded {
  union {
    CudaApi api;
    void* functions[kFunctions];
  };
  const char* missing;  // nullptr: all is there
  int32_t code;         // of cuInit
};

Loaded load() {
  Loaded loaded{};
  loaded.missing = load_functions(kLibraries, 2, kNames, kFunctions, loaded.functions);
  if (loaded.missing == nullptr) loaded.code = loaded.api.cuInit(0);
  return loaded;
}

}  // namespace

Status load_cuda(const CudaApi** api) {
  static const Loaded loaded = load();
  *api = &loaded.api;
  if (loaded.missing != nullptr) {
    return fail(
        FORERUN_DEVICE,
        "CUDA is not there: %s was not found; install NVIDIA's driver, or compile the bundle for the CPU",
        loaded.missing);
  }
  if (loaded.code == 0) return FORERUN_OK;
  if (loaded.code == kCudaNoDevice) {
    return fail(FORERUN_DEVICE,
                "CUDA is there but has no device; is the GPU there, and CUDA_VISIBLE_DEVICES right?");
  }
  return fail(FORERUN_DEVICE, "NVIDIA's driver does not start (cuInit gives %d); install it again",
              loaded.code);
}

}  // namespace forerun
