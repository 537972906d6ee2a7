#include "device/choice.h"

#include <cstdlib>

namespace forerun {

Status choose_device(const char* interface, const std::vector<DeviceChoice>& found,
                     const DeviceChoice** chosen) {
  const char* const wanted = std::getenv("FORERUN_DEVICE");
  *chosen = nullptr;
  std::string names;
  for (const DeviceChoice& one : found) {
    names += (names.empty() ? "" : ", ") + one.name;
    if (wanted != nullptr && one.name.find(wanted) == std::string::npos) continue;
    if (*chosen == nullptr || one.rank < (*chosen)->rank) *chosen = &one;
  }
  if (*chosen != nullptr) return FORERUN_OK;
  if (!found.empty()) {
    return fail(FORERUN_DEVICE, "no %s device has %s in its name (FORERUN_DEVICE); there are: %s", interface,
                wanted, names.c_str());
  }
  return fail(
      FORERUN_DEVICE,
      "%s is there but has no device; install the device's driver, or one that runs on the CPU (PoCL for "
      "OpenCL, Mesa's lavapipe for WebGPU)",
      interface);
}

}  // namespace forerun
