// Drafters by the specs that users write.
#ifndef FORERUN_LOOP_MAKE_DRAFTER_H
#define FORERUN_LOOP_MAKE_DRAFTER_H

#include <memory>

#include "drafter.h"

namespace forerun {

// The drafter that a spec describes; `shape` is the spec of a draft shape, or nullptr for its own.
Status make_drafter(const char* text, const char* shape, std::unique_ptr<Drafter>* drafter);

}  // namespace forerun

#endif
