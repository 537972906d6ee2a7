// What the processor at hand can do, in the feature names of manifests (those of Linux' /proc/cpuinfo).
#ifndef FORERUN_CPU_H
#define FORERUN_CPU_H

#include "status.h"

namespace forerun {

// Name of the architecture this library was compiled for, for example "x86_64".
const char* cpu_architecture();

// Whether the processor has the feature and the system lets programs use it. Underscores do not matter:
// "avx512_vnni" is "avx512vnni". A name that is not known counts as missing.
bool cpu_has(const char* feature);

// Asks the system for what a feature of the processor needs before its first use: tiles (amx_tile) only.
Status cpu_enable(const char* feature);

}  // namespace forerun

#endif
