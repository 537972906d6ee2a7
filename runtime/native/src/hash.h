// XXH64, the hash of the bundle format (specification: the xxHash project's xxhash_spec.md).
#ifndef FORERUN_HASH_H
#define FORERUN_HASH_H

#include <cstddef>
#include <cstdint>

#include "status.h"

namespace forerun {

uint64_t hash64(const void* data, size_t bytes, uint64_t seed);

// Bytes of a piece in the hash of a file.
constexpr size_t kHashPiece = size_t{1} << 20;

// The hash of a file of the bundle: XXH64 of its bytes, or, of more than one piece, XXH64 of the XXH64s of
// its pieces, so that threads can share the work. Sets *hash.
Status hash_file(const void* data, size_t bytes, uint64_t* hash);

}  // namespace forerun

#endif
