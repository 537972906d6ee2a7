/* Random calls on several sequences; every row's logits must be those of a plain recomputation, bit for bit.
 */
#include <string.h>

#include "core_test.h"

enum { SEQUENCES = 3, CAPACITY = 60, ROWS = 12, VOCABULARY = 37, FULL = 6 };

typedef struct track {
  int used;
  int32_t length;
  int32_t staged;
  int32_t token_ids[CAPACITY]; /* committed, then staged */
  int32_t parents[CAPACITY];   /* of staged rows */
} track;

typedef struct walk {
  uint64_t random;
  forerun_session *session, *plain; /* `plain` recomputes with one thread */
  track tracks[SEQUENCES];
} walk;

/* Tokens from the start of the sequence to a staged row; returns how many. */
static int32_t path_of(const track* track, int32_t row, int32_t* token_ids) {
  int32_t branch[CAPACITY], depth = 0;
  for (; row >= 0; row = track->parents[row]) branch[depth++] = row;
  memcpy(token_ids, track->token_ids, (size_t)track->length * sizeof *token_ids);
  for (int32_t i = 0; i < depth; ++i)
    token_ids[track->length + i] = track->token_ids[track->length + branch[depth - 1 - i]];
  return track->length + depth;
}

/* Runs the path from nothing, in chunks, and compares the logits of its last row. */
static void compare(walk* walk, const track* track, int32_t row, const float* logits) {
  int32_t token_ids[CAPACITY];
  const int32_t count = path_of(track, row, token_ids);
  const int32_t path[ROWS] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
  forerun_result result = {0};
  CHECK(forerun_rewind(walk->plain, 0, 0) == FORERUN_OK);
  for (int32_t at = 0; at < count; at += ROWS) {
    const int32_t size = count - at < ROWS ? count - at : ROWS, last = size - 1;
    forerun_row rows[ROWS];
    for (int32_t i = 0; i < size; ++i) rows[i] = (forerun_row){0, i};
    const forerun_request request = {rows, size, NULL, FORERUN_ALL, &last, 1, NULL, 0, 0, NULL};
    CHECK(forerun_stage(walk->plain, 0, size, token_ids + at, NULL) == FORERUN_OK);
    CHECK(forerun_forward(walk->plain, &request, &result) == FORERUN_OK);
    CHECK(forerun_commit(walk->plain, 0, size, path) == FORERUN_OK);
  }
  CHECK(memcmp(logits, result.logits, VOCABULARY * sizeof(float)) == 0);
}

static void stage(walk* walk, int32_t number) {
  track* track = &walk->tracks[number];
  int32_t token_ids[4], parents[4];
  const int32_t count = 1 + pick(&walk->random, 4);
  for (int32_t i = 0; i < count; ++i) {
    const int32_t index = track->staged + i;
    token_ids[i] = pick(&walk->random, VOCABULARY);
    parents[i] = pick(&walk->random, 2) ? index - 1 : pick(&walk->random, index + 1) - 1;
  }
  const int status = forerun_stage(walk->session, number, count, token_ids, parents);
  if (status != FORERUN_OK) {
    CHECK(status == FORERUN_CONTEXT_FULL ||
          status == FORERUN_INVALID_ARGUMENT); /* full, or a branch too long */
    return;
  }
  for (int32_t i = 0; i < count; ++i) {
    track->token_ids[track->length + track->staged] = token_ids[i];
    track->parents[track->staged++] = parents[i];
  }
}

/* Runs the first `depth` sublayers of some rows of all sequences; full depth is compared. */
static void run(walk* walk, int32_t depth) {
  static const int32_t steps[FULL] = {0, 1, 2, 3, 4, 5};
  forerun_row rows[ROWS];
  int32_t wanted[ROWS], row_count = 0, wanted_count = 0;
  const int32_t taps[1] = {0};
  for (int32_t s = 0; s < SEQUENCES; ++s) {
    const track* track = &walk->tracks[s];
    for (int32_t i = 0; track->used && i < track->staged && row_count < ROWS; ++i) {
      int32_t done;
      if (pick(&walk->random, 3) == 0) continue;
      CHECK(forerun_row_done(walk->session, s, track->length + i, &done) == FORERUN_OK);
      if (done < FULL) wanted[wanted_count++] = row_count;
      rows[row_count++] = (forerun_row){s, i};
    }
  }
  const forerun_request request = {rows,
                                   row_count,
                                   depth == FULL ? NULL : steps,
                                   depth == FULL ? FORERUN_ALL : depth,
                                   wanted,
                                   wanted_count,
                                   taps,
                                   pick(&walk->random, 8) == 0,
                                   0,
                                   NULL};
  forerun_result result;
  const int status = forerun_forward(walk->session, &request, &result);
  if (status != FORERUN_OK) {
    CHECK(status == FORERUN_INVALID_ARGUMENT ||
          status == FORERUN_NOT_COMPUTED); /* no rows, or the tap is behind */
    return;
  }
  for (int32_t k = 0; depth == FULL && k < wanted_count; ++k) {
    const forerun_row row = rows[wanted[k]];
    compare(walk, &walk->tracks[row.sequence], row.index, result.logits + (size_t)k * VOCABULARY);
  }
}

static void commit(walk* walk, int32_t number) {
  track* track = &walk->tracks[number];
  int32_t path[CAPACITY], kept[CAPACITY], depth = 0;
  for (int32_t row = pick(&walk->random, track->staged + 1) - 1; row >= 0; row = track->parents[row])
    kept[depth++] = row;
  for (int32_t i = 0; i < depth; ++i) path[i] = kept[depth - 1 - i];
  CHECK(forerun_commit(walk->session, number, depth, path) == FORERUN_OK);
  for (int32_t i = 0; i < depth; ++i)
    track->token_ids[track->length + i] = track->token_ids[track->length + path[i]];
  track->length += depth;
  track->staged = 0;
}

static void fork_or_release(walk* walk, int32_t number) {
  int32_t twin;
  if (forerun_sequence_fork(walk->session, number, &twin) == FORERUN_OK) {
    walk->tracks[twin] = walk->tracks[number];
    walk->tracks[twin].staged = 0;
    return;
  }
  CHECK(forerun_sequence_release(walk->session, number) == FORERUN_OK);
  walk->tracks[number].used = 0;
}

static void draw(walk* walk) {
  float logits[VOCABULARY];
  int32_t token_id;
  for (int i = 0; i < VOCABULARY; ++i) logits[i] = (float)pick(&walk->random, 100) * 0.1f;
  const forerun_sampling sampling = {0.1 * pick(&walk->random, 20), pick(&walk->random, VOCABULARY + 5),
                                     0.01 * (1 + pick(&walk->random, 100)), next_random(&walk->random)};
  CHECK(forerun_sample(walk->session, logits, &sampling, pick(&walk->random, 1000), &token_id) == FORERUN_OK);
  CHECK(token_id >= 0 && token_id < VOCABULARY);
}

static void step(walk* walk) {
  int32_t number = pick(&walk->random, SEQUENCES);
  while (!walk->tracks[number].used) number = (number + 1) % SEQUENCES;
  track* track = &walk->tracks[number];
  switch (pick(&walk->random, 16)) {
    case 0:
      fork_or_release(walk, number);
      break;
    case 1:
      track->length = pick(&walk->random, track->length + 1);
      track->staged = 0;
      CHECK(forerun_rewind(walk->session, number, track->length) == FORERUN_OK);
      break;
    case 2:
      draw(walk);
      break;
    case 3:
    case 4:
    case 5:
      commit(walk, number);
      break;
    case 6:
    case 7:
    case 8:
    case 9:
      run(walk, FULL);
      break;
    case 10:
    case 11:
      run(walk, pick(&walk->random, FULL));
      break;
    default:
      stage(walk, number);
  }
}

void test_walk(forerun_bundle* bundle, uint64_t seed, int32_t threads, int32_t calls) {
  walk walk = {.random = seed};
  const forerun_session_options options = {SEQUENCES, CAPACITY, threads, NULL},
                                plain = {1, CAPACITY, 1, NULL};
  int32_t number;
  CHECK(forerun_session_create(bundle, &options, &walk.session) == FORERUN_OK);
  CHECK(forerun_session_create(bundle, &plain, &walk.plain) == FORERUN_OK);
  CHECK(forerun_sequence_create(walk.plain, &number) == FORERUN_OK);
  CHECK(forerun_sequence_create(walk.session, &number) == FORERUN_OK);
  walk.tracks[number].used = 1;
  const long before = allocation_count(), locked = lock_count();
  for (int32_t i = 0; i < calls; ++i) {
    step(&walk);
    int32_t alive = 0;
    for (int32_t s = 0; s < SEQUENCES; ++s) alive += walk.tracks[s].used;
    if (alive == 0) {
      CHECK(forerun_sequence_create(walk.session, &number) == FORERUN_OK);
      walk.tracks[number] = (track){.used = 1};
    }
  }
  CHECK(threads > 1 ||
        lock_count() == locked);       /* more threads lock only to sleep, when spinning was too long */
  CHECK(allocation_count() == before); /* nothing is allocated after a session is made */
  forerun_session_release(walk.session);
  forerun_session_release(walk.plain);
}
