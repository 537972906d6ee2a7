// XXH64, the hash of the bundle format (specification: the xxHash project's xxhash_spec.md).
#ifndef FORERUN_HASH_H
#define FORERUN_HASH_H

#include <cstddef>
#include <cstdint>

namespace forerun {

uint64_t hash64(const void* data, size_t bytes, uint64_t seed);

}  // namespace forerun

#endif
