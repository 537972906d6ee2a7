// How many threads pay on this machine.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "cores.h"
#include "team.h"

namespace forerun {
namespace {

// Opens a file of the system; `name` is its path below `system`.
std::FILE* open_fact(const char* system, const char* name) {
  char path[512];
  const int length = std::snprintf(path, sizeof path, "%s/%s", system, name);
  return length < static_cast<int>(sizeof path) ? std::fopen(path, "re") : nullptr;
}

// The first processor that shares a core with `cpu`, or `cpu` itself where the system does not say.
int first_sibling(const char* system, int cpu) {
  char name[96];
  std::snprintf(name, sizeof name, "devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
  std::FILE* file = open_fact(system, name);
  if (file == nullptr) return cpu;
  int first = cpu;
  if (std::fscanf(file, "%d", &first) != 1) first = cpu;
  std::fclose(file);
  return first;
}

// Processors' worth of time that the control group grants, rounded up; a large number without a limit.
int granted_cpus(const char* system) {
  std::FILE* file = open_fact(system, "fs/cgroup/cpu.max");
  if (file == nullptr) return kMaxThreads;
  long long quota = 0, period = 0;
  const int found = std::fscanf(file, "%lld %lld", &quota, &period);
  std::fclose(file);
  if (found != 2 || quota <= 0 || period <= 0) return kMaxThreads;
  const long long cpus = (quota + period - 1) / period;
  return cpus < kMaxThreads ? static_cast<int>(cpus) : kMaxThreads;
}

}  // namespace

int32_t default_threads() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return 1;
  return usable_cores(allowed, "/sys");
}

int32_t usable_cores(const cpu_set_t& allowed, const char* system) {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &allowed)) CPU_SET(first_sibling(system, cpu), &cores);
  }
  const int counted = CPU_COUNT(&cores);
  const int limit = granted_cpus(system);
  const int threads = counted < limit ? counted : limit;
  return threads < 1 ? 1 : threads;
}

}  // namespace forerun
