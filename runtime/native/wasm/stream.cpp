// Takes the place of src/stream.cpp on WebAssembly, which has no file system to save sequences to.
#include "stream.h"

namespace forerun {
namespace {

Status refuse() {
  return fail(FORERUN_FILE, "there are no files to save a sequence to in WebAssembly; read its text again");
}

}  // namespace

FileWriter::~FileWriter() = default;
Status FileWriter::open(const char*) {
  return refuse();
}
Status FileWriter::put(const void*, size_t) {
  return refuse();
}
Status FileWriter::finish() {
  return refuse();
}

FileReader::~FileReader() = default;
Status FileReader::open(const char*) {
  return refuse();
}
Status FileReader::take(void*, size_t) {
  return refuse();
}
Status FileReader::finish() {
  return refuse();
}

}  // namespace forerun
