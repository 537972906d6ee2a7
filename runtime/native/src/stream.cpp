#include "stream.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "hash.h"

namespace forerun {
namespace {

constexpr char kAside[] = ".XXXXXX";  // what mkstemp makes a name of its own

Status cannot(const char* do_what, const std::string& path) {
  return fail(FORERUN_FILE, "cannot %s %s: %s", do_what, path.c_str(), std::strerror(errno));
}

Status refuse_size(const std::string& path) {
  return fail(FORERUN_SIZE, "%s is shorter than it says; it was cut off: save it again", path.c_str());
}

// Writes all bytes, in as many parts as the system likes.
bool write_all(int number, const uint8_t* data, size_t bytes) {
  while (bytes > 0) {
    const ssize_t written = write(number, data, bytes);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return false;
    data += written;
    bytes -= static_cast<size_t>(written);
  }
  return true;
}

// Reads so many bytes; false at an error, errno 0 if the file ends before.
bool read_all(int number, uint8_t* data, size_t bytes) {
  while (bytes > 0) {
    errno = 0;
    const ssize_t got = read(number, data, bytes);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    data += got;
    bytes -= static_cast<size_t>(got);
  }
  return true;
}

}  // namespace

// ---- writing ----

FileWriter::~FileWriter() {
  if (number_ >= 0) close(number_);
  if (!aside_.empty()) unlink(aside_.c_str());
}

Status FileWriter::open(const char* path) {
  FORERUN_TRY(piece_.reserve(kHashPiece, 1, "a file's buffer"));
  path_ = path;
  std::string name = path_ + kAside;
  number_ = mkostemp(&name[0], O_CLOEXEC);
  if (number_ < 0) return cannot("write", path_);
  aside_ = name;
  return FORERUN_OK;
}

Status FileWriter::put(const void* data, size_t bytes) {
  const uint8_t* at = static_cast<const uint8_t*>(data);
  while (bytes > 0) {
    const size_t part = std::min(bytes, kHashPiece - held_);
    std::memcpy(piece_.as<uint8_t>() + held_, at, part);
    held_ += part;
    at += part;
    bytes -= part;
    if (held_ == kHashPiece) FORERUN_TRY(flush());
  }
  return FORERUN_OK;
}

Status FileWriter::flush() {
  if (held_ == 0) return FORERUN_OK;
  hash_ = hash64(piece_.as<uint8_t>(), held_, hash_);
  if (!write_all(number_, piece_.as<uint8_t>(), held_)) return cannot("write", path_);
  held_ = 0;
  return FORERUN_OK;
}

Status FileWriter::finish() {
  FORERUN_TRY(flush());
  if (!write_all(number_, reinterpret_cast<const uint8_t*>(&hash_), sizeof hash_) || fsync(number_) != 0) {
    return cannot("write", path_);
  }
  const int number = number_;
  number_ = -1;
  if (close(number) != 0 || rename(aside_.c_str(), path_.c_str()) != 0) return cannot("write", path_);
  aside_.clear();
  return FORERUN_OK;
}

// ---- reading ----

FileReader::~FileReader() {
  if (number_ >= 0) close(number_);
}

Status FileReader::open(const char* path) {
  FORERUN_TRY(piece_.reserve(kHashPiece, 1, "a file's buffer"));
  path_ = path;
  // A pipe without a writer would wait for ever.
  number_ = ::open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (number_ < 0) return cannot("open", path_);
  struct stat facts;
  if (fstat(number_, &facts) != 0) return cannot("read", path_);
  if (!S_ISREG(facts.st_mode)) return fail(FORERUN_FILE, "%s is no plain file", path);
  bytes_ = static_cast<uint64_t>(facts.st_size);
  if (bytes_ < sizeof hash_) return refuse_size(path_);
  left_ = bytes_ - sizeof hash_;
  return FORERUN_OK;
}

Status FileReader::take(void* data, size_t bytes) {
  uint8_t* at = static_cast<uint8_t*>(data);
  while (bytes > 0) {
    if (taken_ == held_) FORERUN_TRY(fill());
    const size_t part = std::min(bytes, held_ - taken_);
    std::memcpy(at, piece_.as<uint8_t>() + taken_, part);
    taken_ += part;
    at += part;
    bytes -= part;
  }
  return FORERUN_OK;
}

Status FileReader::fill() {
  if (left_ == 0) return refuse_size(path_);
  const size_t part = static_cast<size_t>(std::min<uint64_t>(left_, kHashPiece));
  if (!read_all(number_, piece_.as<uint8_t>(), part)) {
    return errno == 0 ? refuse_size(path_) : cannot("read", path_);
  }
  hash_ = hash64(piece_.as<uint8_t>(), part, hash_);
  left_ -= part;
  held_ = part;
  taken_ = 0;
  return FORERUN_OK;
}

Status FileReader::finish() {
  uint64_t written = 0;
  if (!read_all(number_, reinterpret_cast<uint8_t*>(&written), sizeof written)) {
    return errno == 0 ? refuse_size(path_) : cannot("read", path_);
  }
  if (written == hash_) return FORERUN_OK;
  return fail(FORERUN_HASH, "%s was changed after it was written; save it again", path_.c_str());
}

}  // namespace forerun
