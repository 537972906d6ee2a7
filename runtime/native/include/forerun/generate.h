/* The part of forerun.h that generates; include that. */
#ifndef FORERUN_GENERATE_API_H
#define FORERUN_GENERATE_API_H

#include "forerun/forerun.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The loop of speculative decoding over one session, an answer at a time in each sequence: drafters, shapes,
 * exit policies and the planner, by the same specs as in Python and on the command line. Ids are those of
 * plain decoding, whatever drafts.
 *
 *   forerun_generator* generator;
 *   forerun_generator_create(session, &generator);
 *   forerun_generation wanted = {0};
 *   wanted.max_tokens = 100;
 *   forerun_generate_start(generator, sequence, prompt, count, &wanted);
 *   forerun_generate(generator, sequence, on_tokens, my_data, &finish);
 */
typedef struct forerun_generator forerun_generator;

/* What one step may draw at most. */
#define FORERUN_MOST_DRAWN 64

/* Why an answer ended. */
typedef enum forerun_finish {
  FORERUN_FINISH_NONE = 0, /* it goes on */
  FORERUN_FINISH_STOP = 1, /* an end token, or the callback said so */
  FORERUN_FINISH_LENGTH = 2,
  FORERUN_FINISH_CONTEXT_FULL = 3,
  FORERUN_FINISH_CANCELLED = 4
} forerun_finish;

/* What an answer is asked to be; zeros are sensible everywhere but in max_tokens. */
typedef struct forerun_generation {
  const char* drafter; /* a spec such as "lookup:tokens=4"; NULL = "auto" */
  const char* shape;   /* a spec such as "grown:rows=8"; NULL = the drafter's own */
  const char* exit;    /* a spec such as "confidence:threshold=0.95"; NULL = "never" */
  forerun_sampling sampling;
  int32_t max_tokens;
  const int32_t* end_token_ids; /* [end_token_count], at most 16: they end the answer and are part of it */
  int32_t end_token_count;
} forerun_generation;

/* Lives on one session, which has to outlive it, and is used like it: from one thread at a time. Drafts are
 * opened when a drafter first needs them; what the planner learns is kept from one answer to the next. */
FORERUN_API int forerun_generator_create(forerun_session* session, forerun_generator** generator);

/* Frees the drafts and everything else of its own. NULL is allowed. */
FORERUN_API void forerun_generator_release(forerun_generator* generator);

/* Begins an answer to the prompt token_ids [count], copied. The rows that the sequence holds already are kept
 * as far as they hold the prompt's tokens, the others are dropped. All memory is reserved here, none by the
 * steps that follow. An answer under way is given up. */
FORERUN_API int forerun_generate_start(forerun_generator* generator, int32_t sequence,
                                       const int32_t* token_ids, int32_t count,
                                       const forerun_generation* wanted);

/* One step: a piece of the prompt, or a draft and its verify call. Writes the tokens drawn, at most
 * FORERUN_MOST_DRAWN, and how many: 0 after a piece that does not end the prompt, and when *finish says that
 * the answer is over. Tokens have to be kept before the next step. */
FORERUN_API int forerun_generate_next(forerun_generator* generator, int32_t sequence, int32_t* token_ids,
                                      int32_t* count, forerun_finish* finish);

/* Keeps the first `count` (1 or more) of the tokens that the last step drew, as if the others had never been.
 */
FORERUN_API int forerun_generate_keep(forerun_generator* generator, int32_t sequence, int32_t count);

/* Told the tokens that a step brought, end tokens included; 0 goes on, another number ends the answer.
 * `drawn` may be lowered: only so many are kept. */
typedef int (*forerun_on_tokens)(void* data, const int32_t* token_ids, int32_t* drawn);

/* Runs all steps until the answer is over. `on_tokens` may be NULL. The callback must not use the session. */
FORERUN_API int forerun_generate(forerun_generator* generator, int32_t sequence, forerun_on_tokens on_tokens,
                                 void* data, forerun_finish* finish);

/* Asks the answer to end before its next step; from any thread, or a signal handler. */
FORERUN_API void forerun_cancel(forerun_generator* generator, int32_t sequence);

/* By what means a draft was made. */
typedef enum forerun_origin {
  FORERUN_ORIGIN_OTHER = 0, /* by a drafter that has one means only */
  FORERUN_ORIGIN_NONE = 1,
  FORERUN_ORIGIN_LOOKUP = 2,
  FORERUN_ORIGIN_NETWORK = 3,
  FORERUN_ORIGIN_LOOKUP_AND_NETWORK = 4,
  FORERUN_ORIGINS = 5
} forerun_origin;

typedef struct forerun_origin_counts {
  int64_t calls;
  int64_t drafted;
  int64_t accepted;
} forerun_origin_counts;

/* What an answer did so far. Tokens kept from a verify call are the accepted rows and one more, so the mean
 * accepted length is 1 + accepted / verify_calls. Entry d of the lists is d + 1 rows below the root. */
typedef struct forerun_statistics {
  int64_t prompt_tokens;
  int64_t cached_tokens; /* of the prompt, found in the sequence */
  int64_t generated_tokens;
  int64_t verify_calls;
  int64_t drafted;
  int64_t accepted;
  double prefill_ms;
  double draft_ms;
  double verify_ms;
  double commit_ms; /* from the first draw until the tokens were kept, callbacks included */
  int64_t drafted_at[FORERUN_MOST_DRAWN];
  int64_t accepted_at[FORERUN_MOST_DRAWN];
  forerun_origin_counts origins[FORERUN_ORIGINS];
} forerun_statistics;

FORERUN_API int forerun_generate_statistics(const forerun_generator* generator, int32_t sequence,
                                            forerun_statistics* statistics);

/* How many kept tokens left the model early, by the layer that they left after: exits [L]. */
FORERUN_API int forerun_generate_exits(const forerun_generator* generator, int32_t sequence, int64_t* exits);

/* What calls of one to many rows cost on this machine: what the planner goes by. */
#define FORERUN_MOST_COSTS 16
typedef struct forerun_costs {
  int32_t count;
  int32_t whole;                    /* 0 if the sequence had too little room left for the largest calls */
  int32_t rows[FORERUN_MOST_COSTS]; /* ascending from 1 */
  double ms[FORERUN_MOST_COSTS];
} forerun_costs;

/* Measures them, some forty calls after what the sequence holds, which stays as it is, and plans with them
 * from now on. Keep them in a file of the app for the next start; without, the planner's first answer
 * measures. */
FORERUN_API int forerun_tune(forerun_generator* generator, int32_t sequence, forerun_costs* costs);

/* Plans with costs that were measured before. */
FORERUN_API int forerun_set_costs(forerun_generator* generator, const forerun_costs* costs);

/* The costs that were measured here or set; count 0: none yet. */
FORERUN_API int forerun_get_costs(const forerun_generator* generator, forerun_costs* costs);

#ifdef __cplusplus
}
#endif
#endif
