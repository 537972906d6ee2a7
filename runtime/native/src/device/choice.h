// Which of several devices is used.
#ifndef FORERUN_DEVICE_CHOICE_H
#define FORERUN_DEVICE_CHOICE_H

#include <string>
#include <vector>

#include "status.h"

namespace forerun {

struct DeviceChoice {
  void* handle;
  std::string name;
  int rank;  // the smaller the better: GPUs before others
};

// Chooses the best, or the best of those that have the environment variable FORERUN_DEVICE in their names;
// fails if there is none. `interface` is named in the error text.
Status choose_device(const char* interface, const std::vector<DeviceChoice>& found,
                     const DeviceChoice** chosen);

}  // namespace forerun

#endif
