#include "hash.h"

#include <algorithm>
#include <cstring>

#include "memory.h"
#include "team.h"

namespace forerun {
namespace {

constexpr uint64_t kPrime1 = 0x9E3779B185EBCA87ull;
constexpr uint64_t kPrime2 = 0xC2B2AE3D27D4EB4Full;
constexpr uint64_t kPrime3 = 0x165667B19E3779F9ull;
constexpr uint64_t kPrime4 = 0x85EBCA77C2B2AE63ull;
constexpr uint64_t kPrime5 = 0x27D4EB2F165667C5ull;

uint64_t rotate(uint64_t value, int bits) {
  return (value << bits) | (value >> (64 - bits));
}

// The format is little-endian, as is every processor that forerun has a target for.
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "hash64 reads words in memory order");

template <typename Word>
uint64_t read(const uint8_t* at) {
  Word word;
  std::memcpy(&word, at, sizeof word);
  return word;
}

uint64_t round(uint64_t accumulator, uint64_t word) {
  return rotate(accumulator + word * kPrime2, 31) * kPrime1;
}

uint64_t merge(uint64_t hash, uint64_t lane) {
  return (hash ^ round(0, lane)) * kPrime1 + kPrime4;
}

uint64_t hash_stripes(const uint8_t** at, const uint8_t* end, uint64_t seed) {
  uint64_t lane[4] = {seed + kPrime1 + kPrime2, seed + kPrime2, seed, seed - kPrime1};
  for (; end - *at >= 32; *at += 32) {
    for (int i = 0; i < 4; ++i) lane[i] = round(lane[i], read<uint64_t>(*at + 8 * i));
  }
  uint64_t hash = rotate(lane[0], 1) + rotate(lane[1], 7) + rotate(lane[2], 12) + rotate(lane[3], 18);
  for (uint64_t value : lane) hash = merge(hash, value);
  return hash;
}

uint64_t hash_tail(uint64_t hash, const uint8_t* at, const uint8_t* end) {
  for (; end - at >= 8; at += 8) {
    hash = rotate(hash ^ round(0, read<uint64_t>(at)), 27) * kPrime1 + kPrime4;
  }
  if (end - at >= 4) {
    hash = rotate(hash ^ (read<uint32_t>(at) * kPrime1), 23) * kPrime2 + kPrime3;
    at += 4;
  }
  for (; at < end; ++at) hash = rotate(hash ^ (*at * kPrime5), 11) * kPrime1;
  return hash;
}

// The pieces of a file, shared out among threads.
struct Pieces {
  const uint8_t* data;
  size_t bytes;
  size_t count;
  int32_t threads;
  uint64_t* hashes;
};

void hash_share(void* argument, int32_t tid) {
  const Pieces& pieces = *static_cast<const Pieces*>(argument);
  for (size_t i = tid; i < pieces.count; i += pieces.threads) {
    const size_t begin = i * kHashPiece;
    pieces.hashes[i] = hash64(pieces.data + begin, std::min(kHashPiece, pieces.bytes - begin), 0);
  }
}

}  // namespace

Status hash_file(const void* data, size_t bytes, uint64_t* hash) {
  const size_t count = (bytes + kHashPiece - 1) / kHashPiece;
  if (count <= 1) {
    *hash = hash64(data, bytes, 0);
    return FORERUN_OK;
  }
  Region hashes;
  FORERUN_TRY(hashes.reserve(count, sizeof(uint64_t), "the hashes of a file"));
  Team team;
  const int32_t threads = static_cast<int32_t>(std::min<size_t>(default_threads(), count));
  FORERUN_TRY(team.start(threads));
  Pieces pieces{static_cast<const uint8_t*>(data), bytes, count, threads, hashes.as<uint64_t>()};
  team.run(hash_share, &pieces);
  *hash = hash64(pieces.hashes, count * sizeof(uint64_t), 0);
  return FORERUN_OK;
}

uint64_t hash64(const void* data, size_t bytes, uint64_t seed) {
  const uint8_t* at = static_cast<const uint8_t*>(data);
  const uint8_t* end = at + bytes;
  uint64_t hash = bytes >= 32 ? hash_stripes(&at, end, seed) : seed + kPrime5;
  hash = hash_tail(hash + bytes, at, end);
  hash = (hash ^ (hash >> 33)) * kPrime2;
  hash = (hash ^ (hash >> 29)) * kPrime3;
  return hash ^ (hash >> 32);
}

}  // namespace forerun
