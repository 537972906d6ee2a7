// Any bytes as a saved sequence of this bundle, under a right checksum; then rows after it.
#include <algorithm>
#include <cstring>

#include "hash.h"
#include "saved_sequence.h"
#include "support.h"

namespace {

forerun_session* open_session() {
  const forerun_session_options options = {2, 40, 1, nullptr};
  forerun_bundle* bundle = nullptr;
  forerun_session* session = nullptr;
  fuzz::write_manifest(fuzz::sound_manifest());
  CHECK(fuzz::open_bundle(&bundle) == FORERUN_OK);
  CHECK(forerun_session_create(bundle, &options, &session) == FORERUN_OK);
  forerun_bundle_release(bundle);
  return session;
}

// What says which model the file is of is put right, so that the rest is read.
std::string sealed(const forerun_session* session, const uint8_t* data, size_t bytes) {
  std::string body(reinterpret_cast<const char*>(data), bytes);
  forerun::SavedHeader header;
  if (bytes >= sizeof header) {
    std::memcpy(&header, body.data(), sizeof header);
    header.bytes = bytes + sizeof(uint64_t);
    header.bundle = session->bundle->identity();
    std::memset(header.target, 0, sizeof header.target);
    std::memcpy(header.target, "tiny", 4);
    std::memcpy(&body[0], &header, sizeof header);
  }
  uint64_t hash = 0;
  for (size_t at = 0; at < bytes; at += forerun::kHashPiece) {
    hash = forerun::hash64(&body[at], std::min(forerun::kHashPiece, bytes - at), hash);
  }
  body.append(reinterpret_cast<const char*>(&hash), sizeof hash);
  return body;
}

// Whatever was restored can be gone on with: rows run or are refused, and it can be saved again.
void go_on(forerun_session* session, int32_t sequence, const std::string& path) {
  const int32_t tokens[2] = {1, 2}, kept[2] = {0, 1};
  const forerun_row rows[2] = {{sequence, 0}, {sequence, 1}};
  const forerun_request request = {rows,        2,       nullptr, FORERUN_ALL, nullptr,
                                   FORERUN_ALL, nullptr, 0,       0,           nullptr};
  forerun_result result;
  CHECK(forerun_sequence_save(session, sequence, path.c_str()) == FORERUN_OK);
  if (forerun_stage(session, sequence, 2, tokens, nullptr) != FORERUN_OK) return;
  const int status = forerun_forward(session, &request, &result);
  CHECK(status == FORERUN_OK || status == FORERUN_NOT_COMPUTED);
  if (status == FORERUN_OK) CHECK(forerun_commit(session, sequence, 2, kept) == FORERUN_OK);
  forerun_sequence_state state;
  CHECK(forerun_sequence_describe(session, sequence, &state) == FORERUN_OK);
  CHECK(status != FORERUN_OK || state.pending == 0);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  static forerun_session* const session = open_session();
  const std::string path = fuzz::folder() + "/saved", file = sealed(session, data, bytes);
  int32_t sequence = -1;
  fuzz::write_file("saved", file.data(), file.size());
  if (forerun_sequence_restore(session, path.c_str(), &sequence) != FORERUN_OK) return 0;
  go_on(session, sequence, path);
  CHECK(forerun_sequence_release(session, sequence) == FORERUN_OK);
  return 0;
}
