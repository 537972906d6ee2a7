// A browser's GPU: what the core imports of runtime/web/gpu.mjs. Numbers of kernels, memory and queues begin
// with 1. Offsets and sizes are bytes.
#ifndef FORERUN_WASM_DEVICE_GPU_H
#define FORERUN_WASM_DEVICE_GPU_H

#include <cstdint>

#include "device/device.h"

#define FORERUN_GPU(name) __attribute__((import_module("forerun_gpu"), import_name(name)))

extern "C" {

// Whether there is a GPU: writes its name, or why there is none, and the largest piece of memory it gives.
FORERUN_GPU("describe") int32_t gpu_describe(char* text, int32_t capacity, uint32_t* most_bytes);
FORERUN_GPU("make_kernel") int32_t gpu_make_kernel(const char* name, const char* source);
FORERUN_GPU("release_kernel") void gpu_release_kernel(int32_t kernel);
FORERUN_GPU("reserve") int32_t gpu_reserve(uint32_t bytes);
FORERUN_GPU("release") void gpu_release(int32_t memory);
FORERUN_GPU("open_queue") int32_t gpu_open_queue();
FORERUN_GPU("close_queue") void gpu_close_queue(int32_t queue);
FORERUN_GPU("write")
void gpu_write(int32_t queue, int32_t memory, uint32_t offset, const void* data, uint32_t bytes);
FORERUN_GPU("read")
void gpu_read(int32_t queue, int32_t memory, uint32_t offset, void* data, uint32_t bytes);
FORERUN_GPU("copy")
void gpu_copy(int32_t queue, int32_t from, uint32_t source, int32_t to, uint32_t sink, uint32_t bytes);
// An argument's memory is its number, 0 where it is none.
FORERUN_GPU("launch")
void gpu_launch(int32_t queue, int32_t kernel, const forerun::DeviceArgument* arguments, int32_t count,
                int32_t columns, int32_t rows);
// Waits for the queue. Suspends the module: JavaScript calls what may lead here through
// WebAssembly.promising. Returns a status, and writes what is wrong.
FORERUN_GPU("finish") int32_t gpu_finish(int32_t queue, char* text, int32_t capacity);

}  // extern "C"

#endif
