// How fast the team can read memory: the floor under every kernel that streams weights.
#ifndef FORERUN_READ_SPEED_H
#define FORERUN_READ_SPEED_H

#include "session.h"

namespace forerun {

// Reads `bytes` bytes `passes` times, each thread a contiguous part, and writes the nanoseconds of each pass.
// From the bundle's mapped weights, or else from memory of its own, written just before and in large pages.
Status measure_read(Session& session, bool weights, uint64_t bytes, int32_t passes, uint64_t* pass_ns);

}  // namespace forerun

#endif
