// Default threads: one per physical core, on machines that are made of files.
#include <sys/stat.h>

#include <string>

#include "cores.h"

extern "C" {
#include "core_test.h"
}

namespace {

// Writes a file below the folder, making the folders above it.
void put(const std::string& folder, const std::string& name, const std::string& text) {
  for (size_t slash = name.find('/'); slash != std::string::npos; slash = name.find('/', slash + 1)) {
    mkdir((folder + "/" + name.substr(0, slash)).c_str(), 0777);
  }
  std::FILE* file = std::fopen((folder + "/" + name).c_str(), "w");
  CHECK(file != nullptr);
  CHECK(std::fputs(text.c_str(), file) >= 0);
  CHECK(std::fclose(file) == 0);
}

void siblings(const std::string& folder, int cpu, const std::string& list) {
  put(folder, "devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list", list + "\n");
}

cpu_set_t processors(std::initializer_list<int> numbers) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int number : numbers) CPU_SET(number, &set);
  return set;
}

}  // namespace

void test_cores(const char* folder) {
  const std::string root = std::string(folder) + "/cores";
  mkdir(folder, 0777);
  mkdir(root.c_str(), 0777);
  // Two threads a core: siblings half the machine apart (0 and 4), next to each other (2 and 3), or unsaid
  // (7).
  const std::string machine = root + "/machine";
  mkdir(machine.c_str(), 0777);
  for (const int cpu : {0, 4}) siblings(machine, cpu, "0,4");
  for (const int cpu : {2, 3}) siblings(machine, cpu, "2-3");
  CHECK(forerun::usable_cores(processors({0, 2, 3, 4, 7}), machine.c_str()) == 3);
  CHECK(forerun::usable_cores(processors({0, 4}), machine.c_str()) == 1);
  CHECK(forerun::usable_cores(processors({4}), machine.c_str()) == 1);
  CHECK(forerun::usable_cores(processors({3, 4}), machine.c_str()) == 2);
  CHECK(forerun::usable_cores(processors({}), machine.c_str()) == 1);
  // A share of processor time, rounded up; none; and one that says nothing.
  put(machine, "fs/cgroup/cpu.max", "150000 100000\n");
  CHECK(forerun::usable_cores(processors({0, 2, 7}), machine.c_str()) == 2);
  put(machine, "fs/cgroup/cpu.max", "10000 100000\n");
  CHECK(forerun::usable_cores(processors({0, 2, 7}), machine.c_str()) == 1);
  put(machine, "fs/cgroup/cpu.max", "max 100000\n");
  CHECK(forerun::usable_cores(processors({0, 2, 7}), machine.c_str()) == 3);
  CHECK(forerun::usable_cores(processors({0, 1}), (root + "/nothing").c_str()) == 2);
}
