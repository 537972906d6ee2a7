// A file that is written aside and renamed when it is whole, and its reader: bytes in order, with a checksum
// at the end. Both go through a buffer of one piece, so that a file of any size takes no more memory.
//
// The checksum is XXH64 of each piece of 1 MiB, seeded with that of the piece before, the first with 0; its
// eight bytes, little-endian, end the file.
#ifndef FORERUN_STREAM_H
#define FORERUN_STREAM_H

#include <cstddef>
#include <cstdint>
#include <string>

#include "memory.h"
#include "status.h"

namespace forerun {

class FileWriter {
 public:
  FileWriter() = default;
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;
  // Removes what was written, unless `finish` succeeded.
  ~FileWriter();

  // Begins a file beside `path`, which stays as it is until `finish`.
  Status open(const char* path);

  Status put(const void* data, size_t bytes);

  // Writes the checksum, brings everything to the disk and gives the file its name.
  Status finish();

 private:
  Status flush();

  std::string path_;
  std::string aside_;
  int number_ = -1;
  Region piece_;
  size_t held_ = 0;
  uint64_t hash_ = 0;
};

class FileReader {
 public:
  FileReader() = default;
  FileReader(const FileReader&) = delete;
  FileReader& operator=(const FileReader&) = delete;
  ~FileReader();

  Status open(const char* path);

  // Bytes of the file, checksum included.
  uint64_t bytes() const { return bytes_; }

  // Fails if the file ends before, checksum excluded.
  Status take(void* data, size_t bytes);

  // Compares the checksum; everything before has to be taken.
  Status finish();

 private:
  Status fill();

  std::string path_;
  int number_ = -1;
  uint64_t bytes_ = 0;
  uint64_t left_ = 0;  // not yet read, checksum excluded
  Region piece_;
  size_t held_ = 0;
  size_t taken_ = 0;
  uint64_t hash_ = 0;
};

}  // namespace forerun

#endif
