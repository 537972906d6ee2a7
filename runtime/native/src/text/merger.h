// Byte pair encoding (Sennrich et al., 2016): pieces to the ids of their tokens.
#ifndef FORERUN_MERGER_H
#define FORERUN_MERGER_H

#include "text/buffer.h"
#include "text/text_file.h"

namespace forerun {

class Merger {
 public:
  // `file` must outlive this.
  explicit Merger(const TextFile& file) : file_(file) {}

  // Appends the ids of a piece of sound text. False if memory is refused, as in all below.
  bool add_piece(const char* text, uint32_t size, Buffer<int32_t>* ids);

 private:
  struct Symbol {
    uint32_t id, previous, next;  // next is kNone at the end; id is kNone for what was merged into another
  };
  struct Candidate {
    uint32_t rank, place, merged;
    bool operator<(const Candidate& other) const {  // the least comes first in a heap
      return rank != other.rank ? rank > other.rank : place > other.place;
    }
  };

  bool read_symbols(const char* text, uint32_t size);
  bool read_bytes(const char* text, uint32_t size);
  bool add_symbol(uint32_t id);
  bool add_unknown();
  bool add_candidate(uint32_t place);
  bool is_current(const Candidate& candidate) const;
  void merge(const Candidate& candidate);

  const Merge* find_merge(uint32_t left, uint32_t right, uint32_t* rank) const;
  uint32_t find_symbol(uint32_t point) const;
  uint32_t find_piece(const char* text, uint32_t size) const;

  const TextFile& file_;
  Buffer<Symbol> symbols_;
  Buffer<Candidate> candidates_;
};

}  // namespace forerun

#endif
