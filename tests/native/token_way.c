/* Generates tokens with system calls as marks around them: token_way BUNDLE THREADS TOKENS TEMPERATURE.
 *
 * getppid() is called nowhere else: what a tracer sees between the second and the third call belongs to the
 * way of TOKENS tokens (stage, forward, sample, commit) in a session that is warm. The ids are printed after.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "test_program.h"

enum { WARM_UP = 20, MAX_TOKENS = 400 };

static int32_t next_token(forerun_session* session, int32_t sequence, int32_t token, int64_t position,
                          double temperature) {
  const forerun_row row = {sequence, 0};
  const forerun_request request = {&row, 1, NULL, FORERUN_ALL, NULL, FORERUN_ALL, NULL, 0, 0, NULL};
  const forerun_sampling sampling = {temperature, 20, 0.9, 7};
  const int32_t path[1] = {0};
  forerun_result result;
  CHECK(forerun_stage(session, sequence, 1, &token, NULL));
  CHECK(forerun_forward(session, &request, &result));
  CHECK(forerun_sample(session, result.logits, &sampling, position + 1, &token));
  CHECK(forerun_commit(session, sequence, 1, path));
  return token;
}

int main(int count, char** arguments) {
  if (count != 5) return 2;
  const forerun_session_options options = {1, WARM_UP + MAX_TOKENS, atoi(arguments[2]), NULL};
  const int32_t tokens = atoi(arguments[3]);
  const double temperature = atof(arguments[4]);
  forerun_bundle* bundle;
  forerun_session* session;
  int32_t sequence, ids[WARM_UP + MAX_TOKENS] = {1};
  CHECK(forerun_bundle_open(arguments[1], NULL, &bundle));
  CHECK(forerun_session_create(bundle, &options, &session));
  CHECK(forerun_sequence_create(session, &sequence));
  getppid();
  for (int32_t i = 0; i < WARM_UP + tokens; ++i) {
    if (i == WARM_UP) getppid();
    ids[i + 1] = next_token(session, sequence, ids[i], i, temperature);
  }
  getppid();
  for (int32_t i = 0; i < WARM_UP + tokens; ++i) printf("%d ", ids[i + 1]);
  forerun_session_release(session);
  forerun_bundle_release(bundle);
  return 0;
}
