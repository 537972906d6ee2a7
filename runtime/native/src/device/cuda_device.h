// CUDA's device, and its queue (cuda_queue.cpp).
#ifndef FORERUN_DEVICE_CUDA_DEVICE_H
#define FORERUN_DEVICE_CUDA_DEVICE_H

#include <list>
#include <vector>

#include "device/cuda_api.h"
#include "device/device.h"

namespace forerun {

inline CudaAddress cuda_address(void* handle) {
  return reinterpret_cast<CudaAddress>(handle);
}

// The error for a call of the driver that failed.
Status cuda_failed(const CudaApi& api, const char* what, int32_t code);

class CudaDevice final : public Device {
 public:
  CudaDevice(const CudaApi& api, int32_t device, std::string name)
      : api_(api), device_(device), name_(std::move(name)) {}
  ~CudaDevice() override {
    enter();
    if (module_ != nullptr) api_.cuModuleUnload(module_);
    if (context_ != nullptr) api_.cuDevicePrimaryCtxRelease_v2(device_);
  }

  Status open();
  const std::string& name() const override { return name_; }
  Status build(const forerun_device_program& program) override;
  Status reserve(uint64_t bytes, const char* what, void** handle) override;
  void release(void* handle) override {
    enter();
    api_.cuMemFree_v2(cuda_address(handle));
  }
  Status open_queue(std::unique_ptr<Queue>* queue) override;

  const CudaApi& api() const { return api_; }
  CudaHandle function(int32_t kernel) const { return functions_[kernel]; }
  const forerun_device_program& program() const { return *program_; }
  // Every thread that calls the driver says for which context.
  void enter() const { api_.cuCtxSetCurrent(context_); }

 private:
  Status refuse_binary() const;

  const CudaApi& api_;
  int32_t device_;
  std::string name_;
  CudaHandle context_ = nullptr, module_ = nullptr;
  std::vector<CudaHandle> functions_;
  const forerun_device_program* program_ = nullptr;
};

// Gathers what it is told until it is waited for. A list of work that came before is recorded as a graph and
// from then on started by one call: passes of as many rows over as many blocks of positions are the same
// list.
class CudaQueue final : public Queue {
 public:
  explicit CudaQueue(const CudaDevice& device) : device_(device), api_(device.api()) {}
  ~CudaQueue() override;

  Status open();
  void write(const DeviceBuffer& buffer, uint64_t offset, const void* data, uint64_t bytes) override;
  void read(const DeviceBuffer& buffer, uint64_t offset, void* data, uint64_t bytes) override;
  void copy(const DeviceBuffer& from, uint64_t source, const DeviceBuffer& to, uint64_t sink,
            uint64_t bytes) override;
  void launch(int32_t kernel, const DeviceArgument* arguments, int32_t columns, int32_t rows) override;
  Status finish() override;

 private:
  // Work as numbers: of each piece what it is, where it goes and what it is given.
  using Words = std::vector<uint64_t>;
  struct Recorded {
    Words words;
    CudaHandle graph;  // nullptr: it came once so far
  };
  // What is read into the staging memory, and for whom.
  struct Fetched {
    void* data;
    uint64_t offset, bytes;
  };

  // Room in the staging memory for so many bytes; false: there is none.
  bool stage(uint64_t bytes, uint64_t* offset);
  // Gives the stream what was gathered, as a graph if it came before.
  void flush(bool whole);
  // Starts what was gathered as a graph, recorded the second time that it comes; false the first time.
  bool start_graph();
  // Keeps what was gathered in mind, in place of what was not used for longest.
  void remember();
  CudaHandle record(const Words& words);
  void encode(const Words& words);
  const uint64_t* encode_one(const uint64_t* word);
  void note(const char* what, int32_t code);

  const CudaDevice& device_;
  const CudaApi& api_;
  CudaHandle stream_ = nullptr;
  void* staging_ = nullptr;  // page-locked memory of the host
  uint64_t staged_ = 0;      // bytes of it that are taken
  Words words_;              // what is gathered
  std::vector<Fetched> fetched_;
  std::list<Recorded> recorded_;  // the last used first
  const char* what_ = nullptr;    // the first thing that failed
  int32_t code_ = 0;
};

}  // namespace forerun

#endif
