// The part of the C interface that reads and writes text.

#include <climits>
#include <new>

#include "text/chat.h"
#include "text/text.h"
#include "text/tokenizer.h"
#include "visit.h"

using forerun::Buffer;
using forerun::fail;
using forerun::require;

namespace forerun {
namespace {

// Copies what was made to the caller's array, as forerun.h says of capacities.
template <typename T>
Status give(const Buffer<T>& made, const char* what, T* to, size_t capacity, size_t* count) {
  *count = made.count();
  if (capacity == 0) return FORERUN_OK;
  FORERUN_TRY(require(to, what));
  if (made.count() > capacity) {
    return fail(FORERUN_INVALID_ARGUMENT,
                "there are %u %s, the array has room for %zu; ask for the number with capacity 0",
                made.count(), what, capacity);
  }
  if (made.count() > 0) std::memcpy(to, made.data(), made.count() * sizeof(T));
  return FORERUN_OK;
}

}  // namespace
}  // namespace forerun

using forerun::give;

extern "C" {

int forerun_text_open(forerun_bundle* bundle, forerun_text** text) {
  FORERUN_TRY(require(bundle, "bundle"));
  FORERUN_TRY(require(text, "text"));
  *text = nullptr;
  forerun_text* opened = new (std::nothrow) forerun_text;
  if (opened == nullptr) return fail(FORERUN_OUT_OF_MEMORY, "no memory for a text");
  const forerun::Status status = opened->open(bundle);
  if (status != FORERUN_OK) {
    opened->release();
    return status;
  }
  *text = opened;
  return FORERUN_OK;
}

void forerun_text_release(forerun_text* text) {
  if (text != nullptr) text->release();
}

int forerun_text_describe(const forerun_text* text, forerun_text_facts* facts) {
  FORERUN_TRY(require(text, "text"));
  FORERUN_TRY(require(facts, "facts"));
  const forerun::TextFile& file = text->file();
  const forerun::TextSettings& settings = file.settings;
  *facts = {static_cast<int32_t>(settings.vocabulary_size),
            static_cast<int32_t>(settings.bos_id),
            settings.add_bos != 0,
            file.chat.count > 0,
            static_cast<int32_t>(file.end_ids.count),
            file.end_ids.data};
  return FORERUN_OK;
}

int forerun_encode(const forerun_text* text, const char* utf8, size_t bytes, int32_t* ids, size_t capacity,
                   size_t* count) {
  FORERUN_TRY(require(text, "text"));
  FORERUN_TRY(require(count, "count"));
  if (bytes > 0) FORERUN_TRY(require(utf8, "utf8"));
  Buffer<int32_t> made;
  forerun::Tokenizer tokenizer(text->file());
  FORERUN_TRY(tokenizer.encode(utf8, bytes, &made));
  return give(made, "ids", ids, capacity, count);
}

int forerun_decode(const forerun_text* text, const int32_t* ids, size_t count, char* utf8, size_t capacity,
                   size_t* bytes) {
  FORERUN_TRY(require(text, "text"));
  FORERUN_TRY(require(bytes, "bytes"));
  if (count > 0) FORERUN_TRY(require(ids, "ids"));
  Buffer<char> run, made;
  if (count > UINT32_MAX || !add_decoded(text->file(), ids, static_cast<uint32_t>(count), &run, &made)) {
    return fail(FORERUN_OUT_OF_MEMORY, "no memory for the text of %zu ids; give them in parts", count);
  }
  return give(made, "bytes", utf8, capacity, bytes);
}

int forerun_decoder_create(forerun_text* text, const char* const* stops, int32_t stop_count,
                           forerun_decoder** decoder) {
  FORERUN_TRY(require(text, "text"));
  FORERUN_TRY(require(decoder, "decoder"));
  *decoder = nullptr;
  forerun_decoder* created = new (std::nothrow) forerun_decoder(text);
  if (created == nullptr) return fail(FORERUN_OUT_OF_MEMORY, "no memory for a decoder");
  const forerun::Status status = created->open(stops, stop_count);
  if (status != FORERUN_OK) {
    delete created;
    return status;
  }
  *decoder = created;
  return FORERUN_OK;
}

void forerun_decoder_release(forerun_decoder* decoder) {
  delete decoder;
}

int forerun_decoder_feed(forerun_decoder* decoder, int32_t token_id, forerun_piece* piece) {
  FORERUN_TRY(require(decoder, "decoder"));
  FORERUN_TRY(require(piece, "piece"));
  return decoder->feed(token_id, piece);
}

int forerun_decoder_flush(forerun_decoder* decoder, forerun_piece* piece) {
  FORERUN_TRY(require(decoder, "decoder"));
  FORERUN_TRY(require(piece, "piece"));
  return decoder->flush(piece);
}

int forerun_chat_prompt(const forerun_text* text, const forerun_message* messages, int32_t count, char* utf8,
                        size_t capacity, size_t* bytes) {
  FORERUN_TRY(require(text, "text"));
  FORERUN_TRY(require(bytes, "bytes"));
  if (count > 0) FORERUN_TRY(require(messages, "messages"));
  Buffer<char> made;
  FORERUN_TRY(add_prompt(text->file(), messages, count, &made));
  return give(made, "bytes", utf8, capacity, bytes);
}

}  // extern "C"
