/* Forerun's runtime core: everything an app needs to run a compiled language model.
 *
 *   forerun_bundle* bundle;
 *   forerun_session* session;
 *   int32_t sequence, tokens[3] = {1, 2, 3}, path[3] = {0, 1, 2}, token;
 *   forerun_bundle_open("smollm2", NULL, &bundle);
 *   forerun_session_create(bundle, NULL, &session);
 *   forerun_sequence_create(session, &sequence);
 *   forerun_stage(session, sequence, 3, tokens, NULL);
 *   forerun_row rows[3] = {{sequence, 0}, {sequence, 1}, {sequence, 2}};
 *   int32_t last[1] = {2};
 *   forerun_request request = {rows, 3, NULL, FORERUN_ALL, last, 1, NULL, 0, 0};
 *   forerun_result result;
 *   forerun_forward(session, &request, &result);
 *   forerun_sampling greedy = {0};
 *   forerun_sample(session, result.logits, &greedy, 3, &token);
 *   forerun_commit(session, sequence, 3, path);
 *
 * That is one step by hand; generate.h has the loop that speculates.
 *
 * Every function that can fail returns a forerun_status; 0 is success. A call that fails changes nothing, and
 * forerun_last_error() then says why. Nothing here aborts (but when the system refuses the few bytes of a
 * name or a short text), prints or keeps global state. Sizes: M rows, V vocabulary, D hidden size, L layers,
 * Kv key/value heads, d head size, F feature size.
 *
 * Sublayers: the attention of layer l is number 2l, its feed-forward 2l + 1. A row is at full depth when it
 * has passed all 2L of them in order.
 *
 * Threads: one session serves one thread at a time (a second one gets FORERUN_BUSY); sessions with teams of
 * their own are independent, also over one bundle. A session belongs to the process that created it: it does
 * not survive fork().
 */
#ifndef FORERUN_FORERUN_H
#define FORERUN_FORERUN_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define FORERUN_API __attribute__((visibility("default")))
#else
#define FORERUN_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* What a call came to. Numbers never change meaning; new ones are added at the end of their group. */
typedef enum forerun_status {
  FORERUN_OK = 0,

  FORERUN_INVALID_ARGUMENT = 1, /* a null pointer, a number out of range, rows that are no chain … */
  FORERUN_OUT_OF_MEMORY = 2,    /* the system refused memory or a thread */
  FORERUN_BUSY = 3,             /* another thread is inside this session, or one that shares its team */
  FORERUN_CONTEXT_FULL = 4,     /* the rows do not fit the capacity or the model's context length */
  FORERUN_NO_SEQUENCE = 5,      /* all sequences of the session are in use */
  FORERUN_INEXACT_ROW = 6,      /* the row did not pass the model's sublayers in order: it cannot be kept */
  FORERUN_NOT_COMPUTED = 7,     /* the row has not passed, or no longer holds, what was asked for */
  FORERUN_NOT_A_NUMBER = 8,     /* the logits hold NaN: the model is broken */

  FORERUN_FILE = 20,                 /* a file is missing or cannot be read or written */
  FORERUN_MANIFEST = 21,             /* manifest.json is not what the format says */
  FORERUN_VERSION = 22,              /* the bundle's or file's format is of another version */
  FORERUN_SIZE = 23,                 /* a file is longer or shorter than the manifest or its header says */
  FORERUN_HASH = 24,                 /* a file's content differs from what was written */
  FORERUN_PATH = 25,                 /* the manifest names a path outside the bundle, or a link */
  FORERUN_UNKNOWN_TARGET = 26,       /* the bundle was not compiled for the target asked for */
  FORERUN_ARCHITECTURE = 27,         /* compiled for another processor architecture */
  FORERUN_CPU_FEATURE = 28,          /* this processor lacks an instruction set the code needs */
  FORERUN_LIBRARY = 29,              /* the compiled library cannot be loaded, or lacks its symbol */
  FORERUN_PROGRAM_ABI_MISMATCH = 30, /* the library was built for another version of this core */
  FORERUN_PROGRAM = 31, /* the compiled program and the manifest disagree, or its sizes make no sense */
  FORERUN_TEXT = 32,    /* text.bin is missing or damaged, or lacks what was asked for: a chat template */
  FORERUN_SAVED = 33,   /* the file is no saved sequence, or one of another bundle or target */
  FORERUN_DEVICE = 34   /* the device of the target is not there, lacks something or has failed */
} forerun_status;

/* An opened bundle for one target: read-only, may be shared by any number of sessions and threads. */
typedef struct forerun_bundle forerun_bundle;

/* Sequences with their key/value cache, a thread team and the memory of a call. */
typedef struct forerun_session forerun_session;

/* As a count: all of them. */
#define FORERUN_ALL (-1)

/* ---- Text and versions -------------------------------------------------------------------------- */

/* Why the last call of this thread failed; valid until this thread's next call. Never NULL. */
FORERUN_API const char* forerun_last_error(void);

/* Version of this library, for example "0.1.0". */
FORERUN_API const char* forerun_version(void);

/* XXH64 of `bytes` bytes, the hash of the bundle format. */
FORERUN_API uint64_t forerun_hash64(const void* data, size_t bytes, uint64_t seed);

/* ---- Bundles ------------------------------------------------------------------------------------ */

typedef struct forerun_model {
  int32_t layers;           /* L */
  int32_t hidden_size;      /* D */
  int32_t vocabulary_size;  /* V */
  int32_t context_length;   /* positions a sequence may have */
  int32_t max_rows;         /* rows one forward may list */
  int32_t max_gather;       /* longest branch of a tree, in rows */
  int32_t kv_element_bytes; /* 2 = IEEE half, 4 = float */
  int32_t feature_size;     /* F, numbers that come with each token; 0 = none */
} forerun_model;

/* Opens the bundle in folder `path` (UTF-8) for `target`; NULL takes the first one in the manifest that this
 * machine runs. Everything is verified before a byte of it is used. */
FORERUN_API int forerun_bundle_open(const char* path, const char* target, forerun_bundle** bundle);

/* Gives up the caller's hold; sessions that use the bundle keep it open. NULL is allowed. */
FORERUN_API void forerun_bundle_release(forerun_bundle* bundle);

/* Sizes of the model. */
FORERUN_API int forerun_bundle_model(const forerun_bundle* bundle, forerun_model* model);

/* Key/value heads and head size of one layer. */
FORERUN_API int forerun_bundle_layer(const forerun_bundle* bundle, int32_t layer, int32_t* kv_heads,
                                     int32_t* head_dim);

/* Memory for the keys and values of one sequence of `capacity` positions; 0 = the model's context length. */
FORERUN_API int forerun_bundle_cache_bytes(const forerun_bundle* bundle, int32_t capacity, uint64_t* bytes);

/* Name of the target it was opened for; lives as long as the bundle. */
FORERUN_API const char* forerun_bundle_target(const forerun_bundle* bundle);

/* Name of the device beside the CPU that its target runs on, empty where it runs on the CPU; lives as long as
 * the bundle. */
FORERUN_API const char* forerun_bundle_device(const forerun_bundle* bundle);

/* ---- Devices ------------------------------------------------------------------------------------ */

/* Writes the name of the device that bundles for `interface` (cuda, opencl, webgpu) would run on, cut to
 * `room` bytes. Of several a GPU is taken; part of a name in the environment variable FORERUN_DEVICE chooses
 * another one. */
FORERUN_API int forerun_find_device(const char* interface, char* name, size_t room);

/* ---- Sessions ----------------------------------------------------------------------------------- */

/* A session with `team_of` runs on that session's threads instead of starting some of its own: two teams on
 * the same cores would halve both. It may be over another bundle, and either may be released first. Both are
 * used from one thread at a time, as if they were one session: a second thread gets FORERUN_BUSY. */
typedef struct forerun_session_options {
  int32_t sequences;        /* most sequences at a time; 0 = 1 */
  int32_t capacity;         /* positions per sequence, staged rows included; 0 = the model's context length */
  int32_t threads;          /* 0 = one per physical core this process may use, or those of `team_of` */
  forerun_session* team_of; /* NULL = a team of its own */
} forerun_session_options;

/* All memory is reserved here, none later; pages cost nothing until they are used. NULL options = all
 * defaults. */
FORERUN_API int forerun_session_create(forerun_bundle* bundle, const forerun_session_options* options,
                                       forerun_session** session);

/* Frees everything, and ends the team if no other session runs on it. NULL is allowed. */
FORERUN_API void forerun_session_release(forerun_session* session);

/* The options in force, defaults filled in; `team_of` is NULL. */
FORERUN_API int forerun_session_describe(const forerun_session* session, forerun_session_options* options);

/* ---- Sequences ---------------------------------------------------------------------------------- */

/* A new, empty sequence; its number is at least 0 and below the session's `sequences`. */
FORERUN_API int forerun_sequence_create(forerun_session* session, int32_t* sequence);

/* Gives the number back. */
FORERUN_API int forerun_sequence_release(forerun_session* session, int32_t sequence);

/* A new sequence with the committed rows of another one (its staged rows are not copied). */
FORERUN_API int forerun_sequence_fork(forerun_session* session, int32_t sequence, int32_t* fork);

/* Writes the committed rows to the file `path` (UTF-8): tokens, keys and values, and what rows below full
 * depth wait with; staged rows are not part of it. The file is written aside and renamed: it is never half
 * there, and an old one stays as it is until then. Its format is in src/saved_sequence.h; a position takes
 * its keys and values and 12 bytes. In WebAssembly, which has no files, it fails with FORERUN_FILE. */
FORERUN_API int forerun_sequence_save(forerun_session* session, int32_t sequence, const char* path);

/* A new sequence with the rows of a saved one, bit for bit: every answer that begins there has the ids that
 * it would have had. Only the bundle and target that saved it can restore it. Drafts and the planner are no
 * part of it: they start afresh, which changes how much is accepted at first, and no id. */
FORERUN_API int forerun_sequence_restore(forerun_session* session, const char* path, int32_t* sequence);

/* Copies at most `room` ids of the committed rows (-1: given by a hidden state); *count says how many are. */
FORERUN_API int forerun_sequence_tokens(forerun_session* session, int32_t sequence, int32_t* token_ids,
                                        int32_t room, int32_t* count);

typedef struct forerun_sequence_state {
  int32_t length;  /* committed positions */
  int32_t staged;  /* staged rows */
  int32_t pending; /* committed rows that are not at full depth yet */
} forerun_sequence_state;

FORERUN_API int forerun_sequence_describe(forerun_session* session, int32_t sequence,
                                          forerun_sequence_state* state);

/* Stages rows for `count` tokens. parents[i] is the index of an earlier staged row, or -1 for a child of the
 * last committed position. NULL: a chain that continues from the last staged row. Indices count from 0 since
 * the last commit or rewind; the new rows take the next ones. Nothing is computed yet. */
FORERUN_API int forerun_stage(forerun_session* session, int32_t sequence, int32_t count,
                              const int32_t* token_ids, const int32_t* parents);

/* The same for a program whose tokens come with features, [count, F], and for no other. They are kept until
 * their rows are computed; at most max_rows rows of a sequence may wait for that. */
FORERUN_API int forerun_stage_features(forerun_session* session, int32_t sequence, int32_t count,
                                       const int32_t* token_ids, const float* features,
                                       const int32_t* parents);

/* Stages rows given by hidden states [count, D] that enter at sublayer `start`. They have no keys and values
 * in layers below, so no descendant can run those. */
FORERUN_API int forerun_stage_hidden(forerun_session* session, int32_t sequence, int32_t count,
                                     const float* hidden, const int32_t* parents, int32_t start);

/* Keeps the staged rows `path` (root first, each the parent of the next) and drops the others; 0 drops all.
 * Rows that are not at full depth stay pending: the next row that goes deeper takes them along. */
FORERUN_API int forerun_commit(forerun_session* session, int32_t sequence, int32_t count,
                               const int32_t* path);

/* Goes back to `length` committed positions, as if later ones had never been; drops what is staged. Where
 * layers with a window have lost what rows there see, all rows become pending, to be computed anew by the
 * next forward. */
FORERUN_API int forerun_rewind(forerun_session* session, int32_t sequence, int32_t length);

/* Sublayers that a row has passed. `slot` counts the committed positions, then the staged rows. */
FORERUN_API int forerun_row_done(forerun_session* session, int32_t sequence, int32_t slot, int32_t* done);

/* ---- Forward ------------------------------------------------------------------------------------ */

typedef struct forerun_sampling {
  double temperature; /* 0 = the largest logit, ties to the lower id */
  int32_t top_k;      /* 0 = all */
  double top_p;       /* above 0, at most 1; not used at temperature 0 */
  uint64_t seed;
} forerun_sampling;

typedef struct forerun_row {
  int32_t sequence;
  int32_t index; /* of a staged row */
} forerun_row;

typedef struct forerun_request {
  const forerun_row* rows; /* [row_count], 1 … max_rows, any sequences, any order, none twice */
  int32_t row_count;
  /* Sublayers to run, in this order. A row skips those below its depth. If what remains is not the next
   * sublayers in order, the row becomes inexact: its results can be read and rows below it can run, but it
   * can be neither committed nor continued. FORERUN_ALL: the whole model. */
  const int32_t* steps;
  int32_t step_count;
  const int32_t* logits_rows; /* indices into rows; FORERUN_ALL: every row */
  int32_t logits_count;
  const int32_t* taps; /* layers after which to read hidden states; every row must pass them in this call, or
                        * stand just after them (below full depth) */
  int32_t tap_count;
  /* 1: the rows of logits_rows get no logits; forerun_draw draws from them instead, which computes only the
   * logits that can matter. */
  int32_t draws;
  /* With `draws`: how each of logits_rows [logits_count] will probably be drawn from, at the position after
   * its own; a device then brings along what such a draw looks at. NULL where that is not known. No token
   * depends on it. */
  const forerun_sampling* sampling;
} forerun_request;

/* Arrays live in the session and are valid until its next forward. */
typedef struct forerun_result {
  const float* logits;  /* [logits_count, V], in the order asked for; undefined with `draws` */
  const float* taps;    /* [tap_count, row_count, D] */
  double elapsed_ms;    /* time spent in this call */
  int32_t carried_rows; /* pending ancestors that were taken along */
  int32_t passes;       /* runs through the program that it took */
} forerun_result;

/* Runs rows through the model. Ancestors that are pending are carried through exactly the sublayers they
 * miss. A staged row that lies between two listed ones and has not run should be listed too: it is carried
 * only where it can share their pass (the steps continue every row, and all fit max_rows), else the call is
 * refused. */
FORERUN_API int forerun_forward(forerun_session* session, const forerun_request* request,
                                forerun_result* result);

/* ---- Reading and drawing ------------------------------------------------------------------------ */

/* Copies keys and values of slots start … stop-1 (committed positions, then staged rows) of one layer as
 * floats, [Kv, stop - start, d] each. */
FORERUN_API int forerun_read_kv(forerun_session* session, int32_t sequence, int32_t layer, int32_t start,
                                int32_t stop, float* keys, float* values);

/* Draws the token at absolute `position` from logits [V]. The noise is a function of (seed, position, token
 * id) alone: the same logits give the same token, whatever was drafted. */
FORERUN_API int forerun_sample(forerun_session* session, const float* logits,
                               const forerun_sampling* sampling, int64_t position, int32_t* token_id);

/* Draws the same token from row `index` (of logits_rows) of the last forward, which asked for `draws`.
 * Greedy drawing, top_k and plain temperature look at few logits; top_p without top_k needs all of them, so
 * that asking for logits is faster then. */
FORERUN_API int forerun_draw(forerun_session* session, int32_t index, const forerun_sampling* sampling,
                             int64_t position, int32_t* token_id);

/* Logits of a draft: `values` [count], at most V, of which the first `named` stand for tokens that it can
 * name. token_ids [named] are those tokens; NULL: each index is its own. */
typedef struct forerun_draft_logits {
  const float* values;
  int32_t count;
  int32_t named;
  const int32_t* token_ids;
} forerun_draft_logits;

typedef struct forerun_choice {
  int32_t index;     /* of a named logit */
  float probability; /* greedy: softmax over all logits, to a few millionths of its value; else over the best
                      * four, noise included, and the logits that name no token */
} forerun_choice;

#define FORERUN_MOST_CHOICES 64

/* The `wanted` tokens (1 … FORERUN_MOST_CHOICES) that are most likely to be drawn at absolute `position`,
 * best first, for all that the logits know. They are ranked with the noise of the draw, so the first is what
 * these logits would draw, if it is named. Writes `choices` and how many there are.
 */
FORERUN_API int forerun_rank(forerun_session* session, const forerun_draft_logits* logits,
                             const forerun_sampling* sampling, int64_t position, int32_t wanted,
                             forerun_choice* choices, int32_t* found);

#ifdef __cplusplus
}
#endif

#include "forerun/generate.h"
#include "forerun/measure.h"
#include "forerun/text.h"

#endif
