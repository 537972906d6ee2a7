// How many threads pay on this machine.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <sched.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "team.h"

namespace forerun {
namespace {

// The first processor that shares a core with `cpu`, or `cpu` itself where the system does not say.
int first_sibling(int cpu) {
  char path[96];
  std::snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
  std::FILE* file = std::fopen(path, "re");
  if (file == nullptr) return cpu;
  int first = cpu;
  if (std::fscanf(file, "%d", &first) != 1) first = cpu;
  std::fclose(file);
  return first;
}

// Processors' worth of time that the control group grants, rounded up; a large number without a limit.
int granted_cpus() {
  std::FILE* file = std::fopen("/sys/fs/cgroup/cpu.max", "re");
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
  cpu_set_t allowed, cores;
  CPU_ZERO(&allowed);
  CPU_ZERO(&cores);
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return 1;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &allowed)) CPU_SET(first_sibling(cpu), &cores);
  }
  const int counted = CPU_COUNT(&cores);
  const int limit = granted_cpus();
  const int threads = counted < limit ? counted : limit;
  return threads < 1 ? 1 : threads;
}

}  // namespace forerun
