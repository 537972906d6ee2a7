"""A library between the core and a device's driver: counts every call, and fails where it is told to.

All of it but the named failure is the real driver's work. The names are those that the core looks up.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from forerun.compiler.build import native_folder

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static long fail_from;
%(slots)s
%(trampolines)s
%(failing)s

__attribute__((constructor)) static void load(void) {
  void *const driver = dlopen(getenv("SHIM_DRIVER"), RTLD_NOW | RTLD_LOCAL);
  if (!driver) { fprintf(stderr, "%%s\n", dlerror()); abort(); }
  fail_from = atol(getenv("SHIM_FAIL_FROM"));
%(lookups)s
}

__attribute__((destructor)) static void report(void) {
  FILE *const file = fopen(getenv("SHIM_REPORT"), "w");
%(prints)s
  fclose(file);
}
"""

# What takes the place of a driver's function, from its call number SHIM_FAIL_FROM on (0: never).
FAILURES = {
    "opencl": {
        # As drivers say when the device was reset: CL_OUT_OF_RESOURCES.
        "clGetDeviceInfo": """
int clGetDeviceInfo(void *of, uint32_t what, size_t bytes, void *value, size_t *needed) {
  ++count_clGetDeviceInfo;
  const int code = ((int (*)(void *, uint32_t, size_t, void *, size_t *))real_clGetDeviceInfo)(of, what, bytes, value,
                                                                                              needed);
  if (what == 0x1016 && getenv("SHIM_NO_IMAGES")) *(uint32_t *)value = 0;
  if (what == 0x1040 && getenv("SHIM_TEXELS")) *(size_t *)value = (size_t)atol(getenv("SHIM_TEXELS"));
  return code;
}""",
        "clFinish": """
int clFinish(void *queue) {
  const int failed = ++count_clFinish >= fail_from && fail_from > 0;
  const int code = ((int (*)(void *))real_clFinish)(queue);
  return failed ? -5 : code;
}""",
        "clCreateBuffer": """
void *clCreateBuffer(void *context, uint64_t flags, size_t bytes, void *data, int *code) {
  if (getenv("SHIM_NO_MEMORY") && count_clCreateBuffer + 1 >= atol(getenv("SHIM_NO_MEMORY"))) {
    *code = -4;
    return 0;
  }
  ++count_clCreateBuffer;
  return ((void *(*)(void *, uint64_t, size_t, void *, int *))real_clCreateBuffer)(context, flags, bytes, data, code);
}""",
    },
    "cuda": {
        # As after an access that is not allowed: CUDA_ERROR_ILLEGAL_ADDRESS.
        "cuStreamSynchronize": """
int cuStreamSynchronize(void *stream) {
  const int failed = ++count_cuStreamSynchronize >= fail_from && fail_from > 0;
  const int code = ((int (*)(void *))real_cuStreamSynchronize)(stream);
  return failed ? 700 : code;
}""",
        "cuMemAlloc_v2": """
int cuMemAlloc_v2(uint64_t *address, size_t bytes) {
  if (getenv("SHIM_NO_MEMORY") && count_cuMemAlloc_v2 + 1 >= atol(getenv("SHIM_NO_MEMORY"))) return 2;
  ++count_cuMemAlloc_v2;
  return ((int (*)(uint64_t *, size_t))real_cuMemAlloc_v2)(address, bytes);
}""",
    },
    "webgpu": {
        # The device is destroyed after it was given work, as when a driver is reset: wgpu-native says the rest.
        "wgpuDeviceGetQueue": """
static void *device;
void *wgpuDeviceGetQueue(void *of) {
  ++count_wgpuDeviceGetQueue;
  device = of;
  return ((void *(*)(void *))real_wgpuDeviceGetQueue)(of);
}""",
        "wgpuQueueSubmit": """
void wgpuQueueSubmit(void *queue, size_t count, void *commands) {
  ((void (*)(void *, size_t, void *))real_wgpuQueueSubmit)(queue, count, commands);
  if (++count_wgpuQueueSubmit == fail_from) ((void (*)(void *))real_wgpuDeviceDestroy)(device);
}""",
    },
}
# What is made by one function, or several, is given back by another.
PAIRS = {
    "opencl": {
        "clCreateContext": "clReleaseContext",
        "clCreateCommandQueue": "clReleaseCommandQueue",
        "clCreateBuffer clCreateImage": "clReleaseMemObject",
        "clCreateProgramWithSource": "clReleaseProgram",
        "clCreateKernel": "clReleaseKernel",
    },
    "cuda": {
        "cuDevicePrimaryCtxRetain": "cuDevicePrimaryCtxRelease_v2",
        "cuModuleLoadData": "cuModuleUnload",
        "cuMemAlloc_v2": "cuMemFree_v2",
        "cuMemHostAlloc": "cuMemFreeHost",
        "cuStreamCreate": "cuStreamDestroy_v2",
        "cuStreamEndCapture": "cuGraphDestroy",
        "cuGraphInstantiateWithFlags": "cuGraphExecDestroy",
    },
    "webgpu": {
        "wgpuCreateInstance": "wgpuInstanceRelease",
        "wgpuAdapterRequestDevice": "wgpuDeviceRelease",
        "wgpuDeviceGetQueue": "wgpuQueueRelease",
        "wgpuDeviceCreateBuffer": "wgpuBufferRelease",
        "wgpuDeviceCreateShaderModule": "wgpuShaderModuleRelease",
        "wgpuDeviceCreateComputePipeline": "wgpuComputePipelineRelease",
        "wgpuComputePipelineGetBindGroupLayout": "wgpuBindGroupLayoutRelease",
        "wgpuDeviceCreateBindGroup": "wgpuBindGroupRelease",
        "wgpuDeviceCreateCommandEncoder": "wgpuCommandEncoderRelease",
        "wgpuCommandEncoderBeginComputePass": "wgpuComputePassEncoderRelease",
        "wgpuCommandEncoderFinish": "wgpuCommandBufferRelease",
    },
}
_EXTRA = {"opencl": (), "cuda": (), "webgpu": ("wgpuDeviceDestroy",)}


def driver_path(device: str, wgpu: str) -> str:
    """Return the driver's library: OpenCL's loader, or wgpu-native, which `wgpu` names."""
    if device == "webgpu":
        return wgpu
    loader = {"opencl": "libOpenCL.so.1", "cuda": "libcuda.so.1"}[device]
    maps = "import ctypes,sys; ctypes.CDLL(sys.argv[1]); print(open('/proc/self/maps').read())"
    found = subprocess.run([sys.executable, "-c", maps, loader], capture_output=True, text=True, check=True)
    paths = (Path(line.split()[-1]) for line in found.stdout.splitlines() if ".so" in line)
    return str(next(path for path in paths if device in path.name.lower()))


def build_shim(device: str, folder: Path) -> dict[str, str]:
    """Compile the shim; return the environment in which the core takes it for the driver."""
    source = (native_folder() / "src" / "device" / f"{device}_api.cpp").read_text()
    names = re.findall(r'"((?:cl[A-Z]|cu[A-Z]|wgpu[A-Z])\w+)"', source)
    failing = FAILURES[device]
    looked_up = [*names, *_EXTRA[device]]
    text = _SOURCE % {
        "slots": "\n".join(f"void *real_{name}; long count_{name};" for name in looked_up),
        "trampolines": "\n".join(
            f'__asm__(".globl {name}\\n.type {name},@function\\n{name}: lock incq count_{name}(%rip)\\n'
            f'jmp *real_{name}(%rip)");'
            for name in names
            if name not in failing
        ),
        "failing": "\n".join(failing.values()),
        "lookups": "\n".join(f'  real_{name} = dlsym(driver, "{name}");' for name in looked_up),
        "prints": "\n".join(f'  fprintf(file, "{name} %ld\\n", count_{name});' for name in names),
    }
    (folder / "shim.c").write_text(text)
    names_of = {"opencl": "libOpenCL.so.1", "cuda": "libcuda.so.1", "webgpu": "libwgpu_shim.so"}
    library = folder / names_of[device]
    command = ["cc", "-shared", "-fPIC", "-Wl,-Bsymbolic", "-O1", "-o", str(library), str(folder / "shim.c")]
    subprocess.run([*command, "-ldl"], check=True)
    return {"FORERUN_WGPU": str(library)} if device == "webgpu" else {"LD_LIBRARY_PATH": str(folder)}


def calls(report: Path) -> dict[str, int]:
    """Return how often each function of the driver was called."""
    return {name: int(count) for name, count in map(str.split, report.read_text().splitlines())}


def left_over(device: str, report: Path) -> dict[str, int]:
    """Return how many things of each kind were made and not given back, of the kinds where that is not 0."""
    counts = calls(report)
    made = {names: sum(counts[name] for name in names.split()) for names in PAIRS[device]}
    assert any(made.values())
    left = {names: made[names] - counts[gone] for names, gone in PAIRS[device].items()}
    return {names: count for names, count in left.items() if count}
