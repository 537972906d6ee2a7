#include "file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace forerun {
namespace {

// Closes a descriptor on every way out.
class Descriptor {
 public:
  explicit Descriptor(int number) : number_(number) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (number_ >= 0) close(number_);
  }
  int number() const { return number_; }

 private:
  int number_;
};

bool is_plain(const std::string& part) {
  return !part.empty() && part != "." && part != ".." && part.find('\\') == std::string::npos &&
         part.find('\0') == std::string::npos;
}

Status refuse_path(const std::string& name) {
  return fail(FORERUN_PATH,
              "the manifest names the file \"%s\"; a bundle may only hold plain files below its own folder",
              name.c_str());
}

// Opens one part of a path below `folder`, following no link.
Status open_part(int folder, const std::string& part, bool last, const std::string& name, int* number) {
  *number = openat(folder, part.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC | (last ? 0 : O_DIRECTORY));
  if (*number >= 0) return FORERUN_OK;
  if (errno == ELOOP || (errno == ENOTDIR && !last)) return refuse_path(name);
  return fail(FORERUN_FILE, "cannot open %s: %s; copy the whole bundle again", name.c_str(),
              std::strerror(errno));
}

Status map_file(int number, const std::string& name, const uint8_t** data, size_t* bytes) {
  struct stat facts;
  if (fstat(number, &facts) != 0) {
    return fail(FORERUN_FILE, "cannot read %s: %s", name.c_str(), std::strerror(errno));
  }
  if (!S_ISREG(facts.st_mode)) return refuse_path(name);
  *bytes = static_cast<size_t>(facts.st_size);
  if (*bytes == 0) return FORERUN_OK;
  void* mapped = mmap(nullptr, *bytes, PROT_READ, MAP_PRIVATE, number, 0);
  if (mapped == MAP_FAILED) {
    return fail(FORERUN_FILE, "cannot map %s: %s", name.c_str(), std::strerror(errno));
  }
  *data = static_cast<const uint8_t*>(mapped);
  return FORERUN_OK;
}

}  // namespace

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(const_cast<uint8_t*>(data_), bytes_);
}

Status MappedFile::open(const std::string& folder, const std::string& name) {
  int number = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (number < 0) {
    return fail(FORERUN_FILE, "cannot open the folder %s: %s", folder.c_str(), std::strerror(errno));
  }
  size_t begin = 0;
  while (true) {
    const Descriptor parent(number);
    const size_t slash = name.find('/', begin);
    const bool last = slash == std::string::npos;
    const std::string part = name.substr(begin, last ? std::string::npos : slash - begin);
    if (!is_plain(part)) return refuse_path(name);
    FORERUN_TRY(open_part(parent.number(), part, last, name, &number));
    if (last) break;
    begin = slash + 1;
  }
  const Descriptor file(number);
  return map_file(file.number(), name, &data_, &bytes_);
}

}  // namespace forerun
