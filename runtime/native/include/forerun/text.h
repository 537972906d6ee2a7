/* The part of forerun.h that reads and writes text; include that. */
#ifndef FORERUN_TEXT_API_H
#define FORERUN_TEXT_API_H

#include "forerun/forerun.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The tokenizer of a bundle and the pieces of its chat template: read-only, may be shared by any number of
 * threads. All texts are UTF-8 with a size in bytes; what is none is read as U+FFFD, and none is written.
 *
 * Functions that fill an array of the caller's take its `capacity` and always write how much there is to
 * `count` or `bytes`. Capacity 0, where the array may be NULL, only asks; with one that is too small (but not
 * 0) the call fails with FORERUN_INVALID_ARGUMENT and the array is left alone. */
typedef struct forerun_text forerun_text;

/* One answer after the other, token by token. Serves one thread at a time. */
typedef struct forerun_decoder forerun_decoder;

/* Opens and checks the bundle's text.bin. It keeps the bundle open, which may be released before it.
 * FORERUN_TEXT: there is none, and the error text says why, or it is damaged. */
FORERUN_API int forerun_text_open(forerun_bundle* bundle, forerun_text** text);

/* Gives up the caller's hold; decoders that use the text keep it. NULL is allowed. */
FORERUN_API void forerun_text_release(forerun_text* text);

typedef struct forerun_text_facts {
  int32_t vocabulary_size; /* ids of the tokenizer are below; the model's V may be larger */
  int32_t bos_id;          /* token at the beginning of texts; -1 = none */
  int32_t add_bos;         /* 1: put it before a prompt that is no chat prompt (those bring their own) */
  int32_t has_chat;        /* 1: forerun_chat_prompt works */
  int32_t end_count;
  const int32_t* end_ids; /* [end_count], any of which ends an answer; live as long as the text */
} forerun_text_facts;

FORERUN_API int forerun_text_describe(const forerun_text* text, forerun_text_facts* facts);

/* Ids of a text of `bytes` bytes. Special tokens that are written out in it, as chat prompts do, become their
 * ids; no others are added. Two calls, one to ask, do the work twice: as many ids as bytes and 16 more are
 * nearly always room enough. */
FORERUN_API int forerun_encode(const forerun_text* text, const char* utf8, size_t bytes, int32_t* ids,
                               size_t capacity, size_t* count);

/* Text of `count` ids without special tokens. Ids that the tokenizer does not have say nothing. */
FORERUN_API int forerun_decode(const forerun_text* text, const int32_t* ids, size_t count, char* utf8,
                               size_t capacity, size_t* bytes);

/* A decoder that cuts answers before the first of the `stops` [stop_count], texts that end with NUL, of which
 * it takes copies. It keeps the text, which may be released before it. All memory for usual answers is
 * reserved here; more is taken only while very much text is held back. */
FORERUN_API int forerun_decoder_create(forerun_text* text, const char* const* stops, int32_t stop_count,
                                       forerun_decoder** decoder);

/* Ends the decoder. NULL is allowed. */
FORERUN_API void forerun_decoder_release(forerun_decoder* decoder);

typedef struct forerun_piece {
  const char* utf8; /* whole characters, not ended with NUL; valid until the decoder's next call */
  size_t bytes;     /* may be 0 */
  int32_t stopped;  /* 1: a stop string was found and the answer ended before it; nothing more will come */
} forerun_piece;

/* The text that a token makes certain. Bytes of an unfinished character are held back, and so is an end that
 * could become a stop string. The token that ends an answer is not fed. */
FORERUN_API int forerun_decoder_feed(forerun_decoder* decoder, int32_t token_id, forerun_piece* piece);

/* What was held back, now that the answer is over. The decoder is as new after it. */
FORERUN_API int forerun_decoder_flush(forerun_decoder* decoder, forerun_piece* piece);

typedef struct forerun_message {
  const char* role; /* "system", "user" or "assistant" */
  const char* content;
  size_t bytes; /* of the content */
} forerun_message;

/* The prompt for a conversation, up to where the answer begins: to be encoded without another bos_id. It is
 * what the model's chat template writes. FORERUN_TEXT: the template cannot be described to the core, and the
 * error text says why; FORERUN_INVALID_ARGUMENT: it does not allow these messages. */
FORERUN_API int forerun_chat_prompt(const forerun_text* text, const forerun_message* messages, int32_t count,
                                    char* utf8, size_t capacity, size_t* bytes);

#ifdef __cplusplus
}
#endif
#endif
