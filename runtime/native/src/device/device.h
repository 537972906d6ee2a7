// A device beside the CPU as the core sees it: memory, kernels, and queues that run them.
#ifndef FORERUN_DEVICE_DEVICE_H
#define FORERUN_DEVICE_DEVICE_H

#include <cstdint>
#include <memory>
#include <string>

#include "forerun/device.h"
#include "status.h"

namespace forerun {

class Device;

// Arguments of one kernel; programs with more are refused.
constexpr int32_t kMostArguments = 32;

// Memory of a device.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;
  ~DeviceBuffer();

  // Reserves so many bytes, which hold anything; `what` names them in the error text.
  Status reserve(Device* device, uint64_t bytes, const char* what);

  void* handle() const { return handle_; }

 private:
  Device* device_ = nullptr;
  void* handle_ = nullptr;
};

// What a kernel is given: memory, or a number where `buffer` is nullptr.
struct DeviceArgument {
  void* buffer;
  int32_t number;
};

// Runs what it is told one after the other. Once something has failed it does nothing more, and every
// finish() says what. Memory of the caller's stays as it is until the next finish().
class Queue {
 public:
  virtual ~Queue() = default;
  virtual void write(const DeviceBuffer& buffer, uint64_t offset, const void* data, uint64_t bytes) = 0;
  virtual void read(const DeviceBuffer& buffer, uint64_t offset, void* data, uint64_t bytes) = 0;
  virtual void copy(const DeviceBuffer& from, uint64_t source, const DeviceBuffer& to, uint64_t sink,
                    uint64_t bytes) = 0;
  // Runs the program's kernel of that number on columns × rows workgroups; an argument for each that it
  // takes.
  virtual void launch(int32_t kernel, const DeviceArgument* arguments, int32_t columns, int32_t rows) = 0;
  // Waits until all of it is done.
  virtual Status finish() = 0;
};

// A device with the kernels of one program. Any number of queues may run them at the same time.
class Device {
 public:
  virtual ~Device() = default;
  virtual const std::string& name() const = 0;
  virtual Status build(const forerun_device_program& program) = 0;
  virtual Status reserve(uint64_t bytes, const char* what, void** handle) = 0;
  virtual void release(void* handle) = 0;
  virtual Status open_queue(std::unique_ptr<Queue>* queue) = 0;
};

// Refuses memory of more bytes than the device gives in one piece.
Status check_piece(const Device& device, const char* what, uint64_t bytes, uint64_t most);

// Finds a device with the interface of that name, such as opencl.
Status find_device(const char* interface, std::unique_ptr<Device>* device);

}  // namespace forerun

#endif
