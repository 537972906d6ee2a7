#include <algorithm>
#include <cstring>
#include <new>

#include "device/cuda_device.h"

namespace forerun {
namespace {

// What a piece of work begins with; its other numbers follow.
enum Piece : uint64_t {
  kWrite,   // offset in the staging memory, address, bytes
  kRead,    // address, offset in the staging memory, bytes
  kCopy,    // from, to, bytes
  kLaunch,  // kernel, columns, rows, then its arguments
};

// Rows and numbers of a call and the logits of some rows fit in; more goes by itself.
constexpr uint64_t kStagingBytes = 1 << 20;
constexpr uint64_t kStagingAlignment = 16;
// Passes of so many kinds are known at a time: of a few numbers of rows, at one number of blocks of
// positions.
constexpr size_t kMostRecorded = 24;

}  // namespace

CudaQueue::~CudaQueue() {
  if (stream_ == nullptr) return;
  device_.enter();
  api_.cuStreamSynchronize(stream_);
  for (const Recorded& one : recorded_) {
    if (one.graph != nullptr) api_.cuGraphExecDestroy(one.graph);
  }
  if (staging_ != nullptr) api_.cuMemFreeHost(staging_);
  api_.cuStreamDestroy_v2(stream_);
}

Status CudaQueue::open() {
  device_.enter();
  note("making a stream", api_.cuStreamCreate(&stream_, kCudaNonBlocking));
  if (code_ == 0) note("its memory of the host", api_.cuMemHostAlloc(&staging_, kStagingBytes, 0));
  return code_ == 0 ? FORERUN_OK : cuda_failed(api_, what_, code_);
}

void CudaQueue::note(const char* what, int32_t code) {
  if (code == 0 || code_ != 0) return;
  what_ = what;
  code_ = code;
}

bool CudaQueue::stage(uint64_t bytes, uint64_t* offset) {
  if (bytes > kStagingBytes - staged_) return false;
  *offset = staged_;
  staged_ = std::min((staged_ + bytes + kStagingAlignment - 1) / kStagingAlignment * kStagingAlignment,
                     kStagingBytes);
  return true;
}

void CudaQueue::write(const DeviceBuffer& buffer, uint64_t offset, const void* data, uint64_t bytes) {
  if (bytes == 0) return;
  const CudaAddress to = cuda_address(buffer.handle()) + offset;
  uint64_t place = 0;
  if (stage(bytes, &place)) {
    std::memcpy(static_cast<uint8_t*>(staging_) + place, data, bytes);
    words_.insert(words_.end(), {kWrite, place, to, bytes});
    return;
  }
  flush(false);
  if (code_ == 0) note("writing memory", api_.cuMemcpyHtoDAsync_v2(to, data, bytes, stream_));
}

void CudaQueue::read(const DeviceBuffer& buffer, uint64_t offset, void* data, uint64_t bytes) {
  if (bytes == 0) return;
  const CudaAddress from = cuda_address(buffer.handle()) + offset;
  uint64_t place = 0;
  if (stage(bytes, &place)) {
    words_.insert(words_.end(), {kRead, from, place, bytes});
    fetched_.push_back({data, place, bytes});
    return;
  }
  flush(false);
  if (code_ == 0) note("reading memory", api_.cuMemcpyDtoHAsync_v2(data, from, bytes, stream_));
}

void CudaQueue::copy(const DeviceBuffer& from, uint64_t source, const DeviceBuffer& to, uint64_t sink,
                     uint64_t bytes) {
  if (bytes == 0) return;
  words_.insert(words_.end(),
                {kCopy, cuda_address(from.handle()) + source, cuda_address(to.handle()) + sink, bytes});
}

void CudaQueue::launch(int32_t kernel, const DeviceArgument* arguments, int32_t columns, int32_t rows) {
  words_.insert(words_.end(), {kLaunch, static_cast<uint64_t>(kernel), static_cast<uint64_t>(columns),
                               static_cast<uint64_t>(rows)});
  const int32_t count = device_.program().kernels[kernel].argument_count;
  for (int32_t i = 0; i < count; ++i) {
    const DeviceArgument& given = arguments[i];
    words_.push_back(given.buffer != nullptr ? cuda_address(given.buffer)
                                             : static_cast<uint32_t>(given.number));
  }
}

Status CudaQueue::finish() {
  flush(true);
  if (code_ == 0) note("waiting for it", api_.cuStreamSynchronize(stream_));
  if (code_ == 0) {
    for (const Fetched& one : fetched_) {
      std::memcpy(one.data, static_cast<uint8_t*>(staging_) + one.offset, one.bytes);
    }
  }
  fetched_.clear();
  staged_ = 0;
  return code_ == 0 ? FORERUN_OK : cuda_failed(api_, what_, code_);
}

void CudaQueue::flush(bool whole) {
  device_.enter();
  if (code_ == 0 && !words_.empty() && !(whole && start_graph())) {
    encode(words_);
    if (whole) remember();
  }
  words_.clear();
}

bool CudaQueue::start_graph() {
  const auto known = std::find_if(recorded_.begin(), recorded_.end(),
                                  [this](const Recorded& one) { return one.words == words_; });
  if (known == recorded_.end()) return false;
  recorded_.splice(recorded_.begin(), recorded_, known);
  if (known->graph == nullptr) known->graph = record(words_);
  if (code_ == 0) note("starting a graph", api_.cuGraphLaunch(known->graph, stream_));
  return true;
}

void CudaQueue::remember() {
  if (recorded_.size() == kMostRecorded) {
    if (recorded_.back().graph != nullptr) api_.cuGraphExecDestroy(recorded_.back().graph);
    recorded_.pop_back();
  }
  recorded_.push_front({words_, nullptr});
}

CudaHandle CudaQueue::record(const Words& words) {
  CudaHandle graph = nullptr, ready = nullptr;
  note("recording a graph", api_.cuStreamBeginCapture_v2(stream_, kCudaCaptureThread));
  if (code_ != 0) return nullptr;
  encode(words);
  note("recording a graph", api_.cuStreamEndCapture(stream_, &graph));
  if (code_ == 0) note("building a graph", api_.cuGraphInstantiateWithFlags(&ready, graph, 0));
  if (graph != nullptr) api_.cuGraphDestroy(graph);
  return ready;
}

void CudaQueue::encode(const Words& words) {
  const uint64_t* word = words.data();
  while (word < words.data() + words.size()) word = encode_one(word);
}

const uint64_t* CudaQueue::encode_one(const uint64_t* word) {
  auto* const staging = static_cast<uint8_t*>(staging_);
  switch (word[0]) {
    case kWrite:
      note("writing memory", api_.cuMemcpyHtoDAsync_v2(word[2], staging + word[1], word[3], stream_));
      return word + 4;
    case kRead:
      note("reading memory", api_.cuMemcpyDtoHAsync_v2(staging + word[2], word[1], word[3], stream_));
      return word + 4;
    case kCopy:
      note("copying memory", api_.cuMemcpyDtoDAsync_v2(word[2], word[1], word[3], stream_));
      return word + 4;
    default:
      break;
  }
  const auto kernel = static_cast<int32_t>(word[1]);
  const forerun_device_kernel& listed = device_.program().kernels[kernel];
  // The driver reads them before it returns; of a number the lower half.
  void* given[kMostArguments];
  for (int32_t i = 0; i < listed.argument_count; ++i) given[i] = const_cast<uint64_t*>(word + 4 + i);
  note(listed.name,
       api_.cuLaunchKernel(device_.function(kernel), static_cast<uint32_t>(word[2]),
                           static_cast<uint32_t>(word[3]), 1, static_cast<uint32_t>(listed.threads), 1, 1, 0,
                           stream_, given, nullptr));
  return word + 4 + listed.argument_count;
}

}  // namespace forerun
