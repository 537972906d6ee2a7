/* Rows that come with features, and sessions that share threads, for sanitizers. */
#include <string.h>

#include "core_test.h"

enum { FEATURES = 5, ROWS = 12, VOCABULARY = 37 };

static void fill_features(const int32_t* tokens, int32_t count, float* features) {
  for (int32_t i = 0; i < count * FEATURES; ++i) {
    features[i] = 0.1f * (float)((tokens[i / FEATURES] * 7 + i % FEATURES) % 11);
  }
}

static void stage_tokens(forerun_session* session, int32_t sequence, int32_t count, const int32_t* tokens,
                         const int32_t* parents) {
  /* Of exactly this size, so that reading past the end is noticed. */
  float* features = malloc((size_t)count * FEATURES * sizeof(float));
  CHECK(features != NULL);
  fill_features(tokens, count, features);
  CHECK(forerun_stage_features(session, sequence, count, tokens, features, parents) == FORERUN_OK);
  free(features);
}

static void run_rows(forerun_session* session, int32_t sequence, int32_t count, forerun_result* result) {
  forerun_row rows[ROWS];
  for (int32_t i = 0; i < count; ++i) rows[i] = (forerun_row){sequence, i};
  const forerun_request request = {rows, count, NULL, FORERUN_ALL, NULL, FORERUN_ALL, NULL, 0, 0, NULL};
  CHECK(forerun_forward(session, &request, result) == FORERUN_OK);
}

/* Logits of the last of `count` tokens, read one by one. */
static void one_by_one(forerun_session* session, int32_t count, const int32_t* tokens, float* logits) {
  const int32_t path[1] = {0};
  int32_t sequence;
  forerun_result result;
  CHECK(forerun_sequence_create(session, &sequence) == FORERUN_OK);
  for (int32_t i = 0; i < count; ++i) {
    stage_tokens(session, sequence, 1, tokens + i, NULL);
    run_rows(session, sequence, 1, &result);
    memcpy(logits, result.logits, VOCABULARY * sizeof(float));
    CHECK(forerun_commit(session, sequence, 1, path) == FORERUN_OK);
  }
  CHECK(forerun_sequence_release(session, sequence) == FORERUN_OK);
}

static void test_waiting_rows(forerun_session* session, forerun_session* plain) {
  const int32_t tokens[ROWS] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
  const int32_t parents[5] = {-1, -1, 1, 2, 3}, kept[4] = {1, 2, 3, 4}, read[5] = {2, 3, 4, 5, 9};
  float expected[VOCABULARY];
  int32_t sequence, fork;
  forerun_result result;
  CHECK(forerun_sequence_create(session, &sequence) == FORERUN_OK);
  stage_tokens(session, sequence, 5, tokens, parents);
  CHECK(forerun_commit(session, sequence, 4, kept) == FORERUN_OK);
  CHECK(forerun_sequence_fork(session, sequence, &fork) == FORERUN_OK);
  float features[ROWS * FEATURES];
  fill_features(tokens, ROWS, features);
  CHECK(forerun_stage_features(session, fork, 9, tokens, features, NULL) == FORERUN_INVALID_ARGUMENT);
  stage_tokens(session, fork, 8, tokens, NULL);
  CHECK(forerun_commit(session, fork, 0, NULL) == FORERUN_OK);
  stage_tokens(session, fork, 1, read + 4, NULL);
  run_rows(session, fork, 1, &result);
  CHECK(result.carried_rows == 4);
  one_by_one(plain, 5, read, expected);
  CHECK(memcmp(expected, result.logits, sizeof expected) == 0);
  CHECK(forerun_rewind(session, sequence, 1) == FORERUN_OK);
  stage_tokens(session, sequence, ROWS - 1, tokens, NULL);
  run_rows(session, sequence, ROWS - 1, &result);
  CHECK(forerun_sequence_release(session, fork) == FORERUN_OK);
  CHECK(forerun_sequence_release(session, sequence) == FORERUN_OK);
}

void test_features(forerun_bundle* bundle) {
  forerun_session *first, *second, *third;
  const int32_t token = 3;
  int32_t sequence;
  forerun_session_options options = {2, 40, 2, NULL};
  CHECK(forerun_session_create(bundle, &options, &first) == FORERUN_OK);
  options = (forerun_session_options){2, 32, 0, first};
  CHECK(forerun_session_create(bundle, &options, &second) == FORERUN_OK);
  options.threads = 3;
  CHECK(forerun_session_create(bundle, &options, &third) == FORERUN_INVALID_ARGUMENT);
  CHECK(forerun_sequence_create(first, &sequence) == FORERUN_OK);
  CHECK(forerun_stage(first, sequence, 1, &token, NULL) == FORERUN_INVALID_ARGUMENT);
  CHECK(forerun_stage_features(first, sequence, 1, &token, NULL, NULL) == FORERUN_INVALID_ARGUMENT);
  CHECK(forerun_sequence_release(first, sequence) == FORERUN_OK);
  test_waiting_rows(second, first);
  forerun_session_release(first);
  options = (forerun_session_options){1, 32, 0, second};
  CHECK(forerun_session_create(bundle, &options, &third) == FORERUN_OK);
  CHECK(forerun_session_describe(third, &options) == FORERUN_OK);
  CHECK(options.threads == 2 && options.team_of == NULL);
  test_waiting_rows(second, third);
  forerun_session_release(second);
  CHECK(forerun_sequence_create(third, &sequence) == FORERUN_OK);
  stage_tokens(third, sequence, 1, &token, NULL);
  forerun_result result;
  run_rows(third, sequence, 1, &result);
  forerun_session_release(third);
}
