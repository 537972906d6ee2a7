// Holds the offsets that runtime/web/core.mjs writes and reads to the structs of forerun.h, and its numbers.
#include <cstddef>

#include "forerun/forerun.h"
#include "team.h"

#define FORERUN_AT(type, field, offset) static_assert(offsetof(type, field) == (offset), "core.mjs knows it")
#define FORERUN_SIZE_OF(type, bytes) static_assert(sizeof(type) == (bytes), "core.mjs knows it")

FORERUN_AT(forerun_model, vocabulary_size, 8);
FORERUN_AT(forerun_model, context_length, 12);
FORERUN_SIZE_OF(forerun_model, 32);
FORERUN_AT(forerun_session_options, capacity, 4);
FORERUN_AT(forerun_session_options, threads, 8);
FORERUN_AT(forerun_session_options, team_of, 12);
FORERUN_SIZE_OF(forerun_session_options, 16);
FORERUN_AT(forerun_text_facts, bos_id, 4);
FORERUN_AT(forerun_text_facts, add_bos, 8);
FORERUN_AT(forerun_text_facts, has_chat, 12);
FORERUN_AT(forerun_text_facts, end_count, 16);
FORERUN_AT(forerun_text_facts, end_ids, 20);
FORERUN_SIZE_OF(forerun_text_facts, 24);
FORERUN_AT(forerun_message, content, 4);
FORERUN_AT(forerun_message, bytes, 8);
FORERUN_SIZE_OF(forerun_message, 12);
FORERUN_AT(forerun_generation, shape, 4);
FORERUN_AT(forerun_generation, exit, 8);
FORERUN_AT(forerun_generation, sampling.temperature, 16);
FORERUN_AT(forerun_generation, sampling.top_k, 24);
FORERUN_AT(forerun_generation, sampling.top_p, 32);
FORERUN_AT(forerun_generation, sampling.seed, 40);
FORERUN_AT(forerun_generation, max_tokens, 48);
FORERUN_AT(forerun_generation, end_token_ids, 52);
FORERUN_AT(forerun_generation, end_token_count, 56);
FORERUN_SIZE_OF(forerun_generation, 64);
FORERUN_AT(forerun_piece, bytes, 4);
FORERUN_SIZE_OF(forerun_piece, 12);
FORERUN_AT(forerun_statistics, accepted, 40);
FORERUN_AT(forerun_statistics, prefill_ms, 48);
FORERUN_AT(forerun_statistics, commit_ms, 72);
static_assert(sizeof(forerun_statistics) <= 4096, "core.mjs has room for it");
static_assert(FORERUN_MOST_DRAWN == 64, "core.mjs knows it");
static_assert(FORERUN_FINISH_CANCELLED == 4, "core.mjs knows it");
static_assert(forerun::kMaxThreads == 256, "forerun.mjs knows it");
