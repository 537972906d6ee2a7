// A sequence in a file: its committed rows, as they are. All numbers are little-endian, floats IEEE 754.
//
//   SavedHeader
//   SavedRow [rows]                          by position
//   float [D] for each row between its start and full depth, by position: the hidden state it stands at
//   float [F] for each row whose features wait to be embedded, by position
//   for each layer, for each row whose keys and values it holds, for each key/value head:
//     the key [d], then the value [d], in the cache's element type
//   uint64 checksum (stream.h)
#ifndef FORERUN_SAVED_SEQUENCE_H
#define FORERUN_SAVED_SEQUENCE_H

#include <cstdint>

#include "session.h"

namespace forerun {

struct SavedHeader {
  char magic[8];        // "forerun\n"
  uint32_t version;     // 1
  uint32_t byte_order;  // 0x01020304 as it lies in memory: read otherwise, the file is of another machine
  uint64_t bytes;       // of the file
  uint64_t bundle;      // XXH64 of the manifest, which holds those of all other files
  char target[64];      // its name, cut off: programs of different targets may round differently
  int32_t rows;
  int32_t reach;  // of the sequence; 0 for a program without windows
};

struct SavedRow {
  int32_t token;  // -1 for a row given by its hidden state
  int32_t start;  // sublayer at which it entered
  int32_t done;   // sublayers passed in order, `start` included
};

// Writes the committed rows of a sequence; staged ones are not part of it.
Status save_sequence(Session& session, int32_t number, const char* path);

// Reads them into a new sequence, bit for bit.
Status restore_sequence(Session& session, const char* path, int32_t* number);

}  // namespace forerun

#endif
