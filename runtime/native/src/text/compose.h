// Unicode's normalization form C.
#ifndef FORERUN_COMPOSE_H
#define FORERUN_COMPOSE_H

#include "text/buffer.h"
#include "text/text_file.h"

namespace forerun {

// Appends a sound text in form C; `points` is room to work in. False if memory is refused.
bool add_composed(const TextFile& file, const char* text, uint32_t size, Buffer<uint32_t>* points,
                  Buffer<char>* composed);

}  // namespace forerun

#endif
