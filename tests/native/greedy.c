/* Generates greedily and checks the bit-exact rule on the way: greedy BUNDLE TARGET THREADS TOKENS ID…
 *
 * Prints the target, the ids, and a hash of the logits of every position. Then runs all positions again in
 * one session of other thread count, in calls of many rows, and fails unless every logit has the same bits.
 * TARGET may be "-" for the best that runs here. Built with LINKED, the table of a package's programs, it
 * loads no library.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "test_program.h"

enum { MOST = 2048 };

static forerun_session* open_session(forerun_bundle* bundle, int32_t threads, int32_t capacity) {
  const forerun_session_options options = {1, capacity, threads, NULL};
  forerun_session* session;
  int32_t sequence;
  CHECK(forerun_session_create(bundle, &options, &session));
  CHECK(forerun_sequence_create(session, &sequence));
  return session;
}

/* Runs `count` tokens as one chain and writes the hash of each one's logits; returns the last one's logits.
 */
static const float* run(forerun_session* session, int32_t vocabulary, int32_t count, const int32_t* tokens,
                        uint64_t* hashes) {
  forerun_row rows[MOST];
  int32_t kept[MOST];
  const forerun_request request = {rows, count, NULL, FORERUN_ALL, NULL, FORERUN_ALL, NULL, 0, 0, NULL};
  forerun_result result;
  for (int32_t i = 0; i < count; ++i) rows[i] = (forerun_row){0, kept[i] = i};
  CHECK(forerun_stage(session, 0, count, tokens, NULL));
  CHECK(forerun_forward(session, &request, &result));
  for (int32_t i = 0; i < count; ++i)
    hashes[i] = forerun_hash64(result.logits + (size_t)i * vocabulary, sizeof(float) * vocabulary, 0);
  CHECK(forerun_commit(session, 0, count, kept));
  return result.logits + (size_t)(count - 1) * vocabulary;
}

int main(int count, char** arguments) {
  forerun_bundle* bundle;
  forerun_model model;
  int32_t tokens[MOST];
  uint64_t hashes[MOST], again[MOST], all = 0;
  if (count < 6 || count - 5 + atoi(arguments[4]) > MOST) return 2;
  const int32_t threads = atoi(arguments[3]), prompt = count - 5, total = prompt + atoi(arguments[4]);
  for (int32_t i = 0; i < prompt; ++i) tokens[i] = atoi(arguments[5 + i]);
  open_bundle(arguments, &bundle);
  CHECK(forerun_bundle_model(bundle, &model));
  printf("target %s\nids", forerun_bundle_target(bundle));
  forerun_session* session = open_session(bundle, threads, total);
  const forerun_sampling greedy = {0.0, 0, 1.0, 0};
  for (int32_t i = 0; i < total; ++i) {
    const float* logits = run(session, model.vocabulary_size, 1, tokens + i, hashes + i);
    if (i + 1 >= prompt && i + 1 < total)
      CHECK(forerun_sample(session, logits, &greedy, i + 1, &tokens[i + 1]));
    if (i + 1 >= prompt && i + 1 < total) printf(" %d", tokens[i + 1]);
  }
  printf("\nlogits");
  for (int32_t i = 0; i < total; ++i) printf(" %016llx", (unsigned long long)hashes[i]);
  printf("\n");
  forerun_session* other = open_session(bundle, threads + 1, total);
  for (int32_t at = 0, rows = 2; at < total; at += rows, rows += 3) {
    const int32_t most = total - at < rows ? total - at : rows;
    run(other, model.vocabulary_size, most, tokens + at, again + at);
  }
  for (int32_t i = 0; i < total; ++i) all |= hashes[i] ^ again[i];
  printf("rows %s\n", all ? "DIFFER" : "equal");
  forerun_session_release(session);
  forerun_session_release(other);
  forerun_bundle_release(bundle);
  return all ? 1 : 0;
}
