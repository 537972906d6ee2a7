// How default_threads (team.h) counts cores on Linux.
#ifndef FORERUN_CORES_H
#define FORERUN_CORES_H

#include <sched.h>

#include <cstdint>

namespace forerun {

// The threads to use by default for processors `allowed`, by what the files below `system` (/sys) say.
int32_t usable_cores(const cpu_set_t& allowed, const char* system);

}  // namespace forerun

#endif
