// Files of a bundle, mapped read-only.
#ifndef FORERUN_FILE_H
#define FORERUN_FILE_H

#include <cstddef>
#include <cstdint>
#include <string>

#include "status.h"

namespace forerun {

class MappedFile {
 public:
  MappedFile() = default;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  // Maps folder/name. `name` must stay below the folder: no absolute path, no "..", no link on the way.
  Status open(const std::string& folder, const std::string& name);

  const uint8_t* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  const uint8_t* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace forerun

#endif
