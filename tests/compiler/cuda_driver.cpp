// CUDA's driver as the core uses it, played by the processor: for tests on machines without a GPU.
//
// Modules are shared libraries of kernels that a C++ compiler made of their sources (cuda_language.h).
// What a stream is given runs when it is waited for, so that nothing may count on its being done before.
// Threads of a workgroup are fibers; they and the workgroups take turns in another order each time, so that a
// missing barrier shows. Memory has guard pages behind it and holds NaN at first. What cuda.h forbids is
// refused.
#include <cuda.h>
#include <dlfcn.h>
#include <elf.h>
#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "cuda_language.h"

thread_local EmulatedIndex threadIdx, blockIdx;

namespace {

constexpr size_t kMemory = size_t{2} << 30, kPage = 4096, kStack = 64 << 10;
constexpr uint32_t kMostThreads = 1024, kWarp = 32;

[[noreturn]] void stop(const char* why) {
  std::fprintf(stderr, "emulated CUDA: %s\n", why);
  std::abort();
}

// The threads of one workgroup at a time, of the thread of the system that runs it.
class Workgroup {
 public:
  static Workgroup& current() {
    static thread_local Workgroup own;
    return own;
  }

  void run(void (*kernel)(void**), void** parameters, uint32_t threads) {
    kernel_ = kernel;
    parameters_ = parameters;
    while (fibers_.size() < threads) start_fiber();
    order_.resize(threads);
    std::iota(order_.begin(), order_.end(), 0u);
    for (uint32_t t = 0; t < threads; ++t) fibers_[t]->state = State::kRunning;
    for (;;) {
      std::shuffle(order_.begin(), order_.end(), random_);
      for (const uint32_t t : order_) {
        if (fibers_[t]->state == State::kRunning) resume(t);
      }
      bool warps_go_on = false;
      for (uint32_t first = 0; first < threads; first += kWarp)
        warps_go_on |= release_warp(first, std::min(kWarp, threads - first));
      if (warps_go_on) continue;
      const auto waiting = count(0, threads, State::kWaiting);
      if (waiting == 0) return;
      if (waiting != threads) stop("a barrier that some threads of the workgroup do not reach");
      for (uint32_t t = 0; t < threads; ++t) fibers_[t]->state = State::kRunning;
    }
  }

  // Of the running fiber: waits for the workgroup, or for its warp alone.
  void meet() { wait(State::kWaiting); }
  void meet_warp() { wait(State::kInWarp); }

  // What the running fiber shows the others of its warp, and what one of them shows.
  uint32_t* shown() { return fibers_[running_]->shown; }
  const uint32_t* shown_by(uint32_t lane) const { return fibers_[running_ / kWarp * kWarp + lane]->shown; }
  uint32_t lane() const { return running_ % kWarp; }

 private:
  enum class State { kRunning, kWaiting, kInWarp, kDone };
  struct Fiber {
    State state = State::kDone;
    uint32_t shown[3];
    jmp_buf here;
    ucontext_t start;
    std::unique_ptr<char[]> stack{new char[kStack]};
  };

  uint32_t count(uint32_t first, uint32_t threads, State state) const {
    const auto begin = fibers_.begin() + first;
    return static_cast<uint32_t>(
        std::count_if(begin, begin + threads, [&](const auto& fiber) { return fiber->state == state; }));
  }

  // Lets a warp go on whose threads have met; false: none of them waits for that.
  bool release_warp(uint32_t first, uint32_t threads) {
    const uint32_t met = count(first, threads, State::kInWarp);
    if (met == 0) return false;
    if (met != kWarp) stop("an instruction of a warp that some of its threads do not reach");
    for (uint32_t t = first; t < first + threads; ++t) fibers_[t]->state = State::kRunning;
    return true;
  }

  void wait(State state) {
    Fiber& own = *fibers_[running_];
    own.state = state;
    leave(own);
  }

  void leave(Fiber& own) {
    if (_setjmp(own.here) == 0) _longjmp(scheduler_, 1);
  }

  void resume(uint32_t thread) {
    running_ = thread;
    threadIdx = {thread, 0, 0};
    if (_setjmp(scheduler_) == 0) _longjmp(fibers_[thread]->here, 1);
  }

  void start_fiber() {
    fibers_.push_back(std::make_unique<Fiber>());
    Fiber& own = *fibers_.back();
    running_ = static_cast<uint32_t>(fibers_.size() - 1);
    getcontext(&own.start);
    own.start.uc_stack.ss_sp = own.stack.get();
    own.start.uc_stack.ss_size = kStack;
    own.start.uc_link = nullptr;
    makecontext(&own.start, [] { current().work(); }, 0);
    if (_setjmp(scheduler_) == 0) setcontext(&own.start);
  }

  void work() {
    Fiber& own = *fibers_[running_];
    for (;;) {
      leave(own);
      kernel_(parameters_);
      own.state = State::kDone;
    }
  }

  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<uint32_t> order_;
  std::mt19937 random_{std::random_device{}()};
  jmp_buf scheduler_;
  uint32_t running_ = 0;
  void (*kernel_)(void**) = nullptr;
  void** parameters_ = nullptr;
};

struct Context {
  int held = 0;
};

struct Module {
  void* library;
  const EmulatedKernel* kernels;
};

using Work = std::function<void()>;

struct Graph {
  std::vector<Work> work;
};

struct Stream {
  std::vector<Work> work;
  std::unique_ptr<Graph> captured;
};

std::mutex lock;
std::map<CUdeviceptr, size_t> memory;  // what is reserved
std::map<const char*, size_t> pinned;  // of the host
size_t reserved = 0;
Context context;
thread_local Context* current = nullptr;

// Devices that CUDA_VISIBLE_DEVICES leaves.
int devices() {
  const char* const visible = std::getenv("CUDA_VISIBLE_DEVICES");
  return visible != nullptr && (*visible == 0 || *visible == '-') ? 0 : 1;
}

bool entered() {
  return current != nullptr && context.held > 0;
}

template <typename Key>
bool inside(const std::map<Key, size_t>& known, Key start, size_t bytes) {
  const std::lock_guard<std::mutex> held(lock);
  auto next = known.upper_bound(start);
  if (next == known.begin()) return false;
  --next;
  return start + bytes <= next->first + next->second;
}

CUresult add(CUstream stream, Work work) {
  auto* const own = reinterpret_cast<Stream*>(stream);
  (own->captured ? own->captured->work : own->work).push_back(std::move(work));
  return CUDA_SUCCESS;
}

CUresult copy(CUstream stream, void* to, const void* from, size_t bytes, const void* host) {
  // Pageable memory of the host is no part of a graph.
  if (host != nullptr && reinterpret_cast<Stream*>(stream)->captured &&
      !inside(pinned, static_cast<const char*>(host), bytes)) {
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  }
  return add(stream, [=] { std::memcpy(to, from, bytes); });
}

// Runs all that waits, in its order.
void run_all(const std::vector<Work>& work) {
  for (const Work& one : work) one();
}

struct Launch {
  void (*run)(void**);
  uint32_t columns, rows, threads;
  std::vector<uint64_t> values;

  void operator()() const {
    std::vector<void*> parameters;
    for (const uint64_t& value : values) parameters.push_back(const_cast<uint64_t*>(&value));
    std::vector<uint32_t> order(static_cast<size_t>(columns) * rows);
    std::iota(order.begin(), order.end(), 0u);
    static thread_local std::mt19937 random{std::random_device{}()};
    std::shuffle(order.begin(), order.end(), random);
    for (const uint32_t place : order) {
      blockIdx = {place % columns, place / columns, 0};
      Workgroup::current().run(run, parameters.data(), threads);
    }
  }
};

}  // namespace

extern "C" {

__attribute__((visibility("default"))) void __syncthreads() {
  Workgroup::current().meet();
}

// __shfl_xor_sync of all threads of a warp.
__attribute__((visibility("default"))) float emulated_across(float value, int bit) {
  Workgroup& group = Workgroup::current();
  std::memcpy(group.shown(), &value, sizeof value);
  group.meet_warp();
  float found;
  std::memcpy(&found, group.shown_by(group.lane() ^ static_cast<uint32_t>(bit)), sizeof found);
  group.meet_warp();
  return found;
}

// mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32, with the fragments that PTX's manual gives each thread.
__attribute__((visibility("default"))) void emulated_multiply_tile(int* sums, uint32_t first, uint32_t second,
                                                                   uint32_t row) {
  Workgroup& group = Workgroup::current();
  const uint32_t given[] = {first, second, row}, lane = group.lane();
  std::copy_n(given, 3, group.shown());
  group.meet_warp();
  for (uint32_t i = 0; i < 4; ++i) {
    for (uint32_t quad = 0; quad < 4; ++quad) {
      const uint32_t a = group.shown_by(lane / 4 * 4 + quad)[i / 2];
      const uint32_t b = group.shown_by((lane % 4 * 2 + i % 2) * 4 + quad)[2];
      sums[i] = __dp4a(static_cast<int>(a), static_cast<int>(b), sums[i]);
    }
  }
  group.meet_warp();
}

CUresult cuInit(unsigned flags) {
  if (flags != 0) return CUDA_ERROR_INVALID_VALUE;
  return devices() > 0 ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE;
}

CUresult cuDeviceGetCount(int* count) {
  *count = devices();
  return CUDA_SUCCESS;
}

CUresult cuDeviceGet(CUdevice* device, int number) {
  if (number != 0) return CUDA_ERROR_INVALID_DEVICE;
  *device = 0;
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetName(char* name, int bytes, CUdevice) {
  std::snprintf(name, static_cast<size_t>(bytes), "emulated GPU");
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice) {
  if (attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR) return *value = 9, CUDA_SUCCESS;
  if (attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR) return *value = 0, CUDA_SUCCESS;
  return CUDA_ERROR_INVALID_VALUE;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext* found, CUdevice) {
  ++context.held;
  *found = reinterpret_cast<CUcontext>(&context);
  return CUDA_SUCCESS;
}

// How it waits makes no difference here.
CUresult cuDevicePrimaryCtxSetFlags(CUdevice device, unsigned flags) {
  return device == 0 && (flags & ~CU_CTX_FLAGS_MASK) == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuDevicePrimaryCtxRelease(CUdevice) {
  return context.held-- > 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

CUresult cuCtxSetCurrent(CUcontext chosen) {
  current = reinterpret_cast<Context*>(chosen);
  return CUDA_SUCCESS;
}

CUresult cuModuleLoadData(CUmodule* module, const void* image) {
  if (!entered()) return CUDA_ERROR_INVALID_CONTEXT;
  const auto* const header = static_cast<const Elf64_Ehdr*>(image);
  if (std::memcmp(header->e_ident, ELFMAG, SELFMAG) != 0) return CUDA_ERROR_INVALID_IMAGE;
  if (header->e_machine != EM_X86_64) return CUDA_ERROR_NO_BINARY_FOR_GPU;  // a real cubin
  const size_t bytes = header->e_shoff + static_cast<size_t>(header->e_shnum) * header->e_shentsize;
  // A name of its own: the loader takes two files of one name for one.
  char path[] = "/tmp/emulated-module-XXXXXX";
  const int file = mkstemp(path);
  if (file < 0 || write(file, image, bytes) != static_cast<ssize_t>(bytes)) stop("no room for a module");
  close(file);
  void* const library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  unlink(path);
  if (library == nullptr) stop(dlerror());
  const auto* const kernels = static_cast<const EmulatedKernel*>(dlsym(library, "emulated_kernels"));
  *module = reinterpret_cast<CUmodule>(new Module{library, kernels});
  return CUDA_SUCCESS;
}

CUresult cuModuleUnload(CUmodule module) {
  auto* const own = reinterpret_cast<Module*>(module);
  dlclose(own->library);
  delete own;
  return CUDA_SUCCESS;
}

CUresult cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
  const EmulatedKernel* kernel = reinterpret_cast<Module*>(module)->kernels;
  while (kernel->name != nullptr && std::strcmp(kernel->name, name) != 0) ++kernel;
  if (kernel->name == nullptr) return CUDA_ERROR_NOT_FOUND;
  *function = reinterpret_cast<CUfunction>(const_cast<EmulatedKernel*>(kernel));
  return CUDA_SUCCESS;
}

CUresult cuMemAlloc(CUdeviceptr* found, size_t bytes) {
  if (!entered()) return CUDA_ERROR_INVALID_CONTEXT;
  if (bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  const std::lock_guard<std::mutex> held(lock);
  if (bytes > kMemory - reserved) return CUDA_ERROR_OUT_OF_MEMORY;
  const size_t aligned = (bytes + 15) / 16 * 16, pages = (aligned + kPage - 1) / kPage * kPage;
  auto* const start = static_cast<char*>(
      mmap(nullptr, pages + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  if (start == MAP_FAILED) return CUDA_ERROR_OUT_OF_MEMORY;
  mprotect(start + pages, kPage, PROT_NONE);
  *found = reinterpret_cast<CUdeviceptr>(start + pages - aligned);
  std::memset(start + pages - aligned, 0xFF, aligned);
  memory[*found] = bytes;
  reserved += bytes;
  return CUDA_SUCCESS;
}

CUresult cuMemFree(CUdeviceptr address) {
  const std::lock_guard<std::mutex> held(lock);
  const auto found = memory.find(address);
  if (found == memory.end()) return CUDA_ERROR_INVALID_VALUE;
  const size_t aligned = (found->second + 15) / 16 * 16, pages = (aligned + kPage - 1) / kPage * kPage;
  munmap(reinterpret_cast<char*>(address) + aligned - pages, pages + kPage);
  reserved -= found->second;
  memory.erase(found);
  return CUDA_SUCCESS;
}

CUresult cuMemHostAlloc(void** found, size_t bytes, unsigned) {
  if (!entered()) return CUDA_ERROR_INVALID_CONTEXT;
  const std::lock_guard<std::mutex> held(lock);
  *found = std::malloc(bytes);
  std::memset(*found, 0xFF, bytes);
  pinned[static_cast<const char*>(*found)] = bytes;
  return CUDA_SUCCESS;
}

CUresult cuMemFreeHost(void* address) {
  const std::lock_guard<std::mutex> held(lock);
  if (pinned.erase(static_cast<const char*>(address)) == 0) return CUDA_ERROR_INVALID_VALUE;
  std::free(address);
  return CUDA_SUCCESS;
}

CUresult cuStreamCreate(CUstream* stream, unsigned) {
  if (!entered()) return CUDA_ERROR_INVALID_CONTEXT;
  *stream = reinterpret_cast<CUstream>(new Stream);
  return CUDA_SUCCESS;
}

CUresult cuStreamDestroy(CUstream stream) {
  delete reinterpret_cast<Stream*>(stream);
  return CUDA_SUCCESS;
}

CUresult cuStreamSynchronize(CUstream stream) {
  if (!entered()) return CUDA_ERROR_INVALID_CONTEXT;
  auto* const own = reinterpret_cast<Stream*>(stream);
  if (own->captured) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  const std::vector<Work> work = std::move(own->work);
  own->work.clear();
  static const bool idle = std::getenv("EMULATED_CUDA") != nullptr;
  if (!idle) run_all(work);
  return CUDA_SUCCESS;
}

CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void* from, size_t bytes, CUstream stream) {
  if (!entered()) return CUDA_ERROR_INVALID_CONTEXT;
  if (!inside(memory, to, bytes)) return CUDA_ERROR_INVALID_VALUE;
  return copy(stream, reinterpret_cast<void*>(to), from, bytes, from);
}

CUresult cuMemcpyDtoHAsync(void* to, CUdeviceptr from, size_t bytes, CUstream stream) {
  if (!entered()) return CUDA_ERROR_INVALID_CONTEXT;
  if (!inside(memory, from, bytes)) return CUDA_ERROR_INVALID_VALUE;
  return copy(stream, to, reinterpret_cast<const void*>(from), bytes, to);
}

CUresult cuMemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
  if (!entered()) return CUDA_ERROR_INVALID_CONTEXT;
  if (!inside(memory, from, bytes) || !inside(memory, to, bytes)) return CUDA_ERROR_INVALID_VALUE;
  return copy(stream, reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from), bytes, nullptr);
}

CUresult cuLaunchKernel(CUfunction function, unsigned columns, unsigned rows, unsigned depth,
                        unsigned threads, unsigned y, unsigned z, unsigned shared, CUstream stream,
                        void** parameters, void** extra) {
  if (!entered()) return CUDA_ERROR_INVALID_CONTEXT;
  if (columns == 0 || rows == 0 || rows > 65535 || depth != 1 || threads == 0 || threads > kMostThreads ||
      y != 1 || z != 1 || shared != 0 || extra != nullptr) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const auto* const kernel = reinterpret_cast<const EmulatedKernel*>(function);
  Launch launch{kernel->run, columns, rows, threads, {}};
  for (const char* bytes = kernel->sizes; *bytes != 0; ++bytes, ++parameters) {
    uint64_t value = 0;
    std::memcpy(&value, *parameters, static_cast<size_t>(*bytes - '0'));
    launch.values.push_back(value);
  }
  return add(stream, launch);
}

CUresult cuStreamBeginCapture(CUstream stream, CUstreamCaptureMode) {
  auto* const own = reinterpret_cast<Stream*>(stream);
  if (!entered() || own->captured) return CUDA_ERROR_ILLEGAL_STATE;
  own->captured = std::make_unique<Graph>();
  return CUDA_SUCCESS;
}

CUresult cuStreamEndCapture(CUstream stream, CUgraph* graph) {
  auto* const own = reinterpret_cast<Stream*>(stream);
  if (!own->captured) return CUDA_ERROR_ILLEGAL_STATE;
  *graph = reinterpret_cast<CUgraph>(own->captured.release());
  return CUDA_SUCCESS;
}

CUresult cuGraphInstantiateWithFlags(CUgraphExec* recorded, CUgraph graph, unsigned long long) {
  *recorded = reinterpret_cast<CUgraphExec>(new Graph(*reinterpret_cast<Graph*>(graph)));
  return CUDA_SUCCESS;
}

CUresult cuGraphLaunch(CUgraphExec recorded, CUstream stream) {
  if (!entered()) return CUDA_ERROR_INVALID_CONTEXT;
  const auto* const graph = reinterpret_cast<Graph*>(recorded);
  return add(stream, [graph] { run_all(graph->work); });
}

CUresult cuGraphExecDestroy(CUgraphExec recorded) {
  delete reinterpret_cast<Graph*>(recorded);
  return CUDA_SUCCESS;
}

CUresult cuGraphDestroy(CUgraph graph) {
  delete reinterpret_cast<Graph*>(graph);
  return CUDA_SUCCESS;
}

CUresult cuGetErrorString(CUresult code, const char** text) {
  static thread_local char found[32];
  std::snprintf(found, sizeof found, "CUDA error %d", static_cast<int>(code));
  *text = found;
  return CUDA_SUCCESS;
}

}  // extern "C"
