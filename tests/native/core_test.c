/* The core's tests without Python, for sanitizers: core_test LIBRARY FOLDER. */
#include "core_test.h"

#include <pthread.h>
#include <string.h>

/* XXH64's own test vectors. */
static void test_hash(void) {
  CHECK(forerun_hash64("", 0, 0) == 0xEF46DB3751D8E999u);
  CHECK(forerun_hash64("a", 1, 0) == 0xD24EC4F1A98C6E5Bu);
  CHECK(forerun_hash64("abc", 3, 0) == 0x44BC2CF5AD770999u);
}

static void test_example_of_the_header(forerun_bundle* bundle) {
  forerun_session* session;
  int32_t sequence, tokens[3] = {1, 2, 3}, path[3] = {0, 1, 2}, token;
  CHECK(forerun_session_create(bundle, NULL, &session) == FORERUN_OK);
  CHECK(forerun_sequence_create(session, &sequence) == FORERUN_OK);
  CHECK(forerun_stage(session, sequence, 3, tokens, NULL) == FORERUN_OK);
  forerun_row rows[3] = {{sequence, 0}, {sequence, 1}, {sequence, 2}};
  int32_t last[1] = {2};
  forerun_request request = {rows, 3, NULL, FORERUN_ALL, last, 1, NULL, 0, 0, NULL};
  forerun_result result;
  CHECK(forerun_forward(session, &request, &result) == FORERUN_OK);
  forerun_sampling greedy = {0};
  CHECK(forerun_sample(session, result.logits, &greedy, 3, &token) == FORERUN_OK);
  CHECK(forerun_commit(session, sequence, 3, path) == FORERUN_OK);
  forerun_sequence_state state;
  CHECK(forerun_sequence_describe(session, sequence, &state) == FORERUN_OK);
  CHECK(state.length == 3 && state.staged == 0 && state.pending == 0);
  forerun_session_release(session);
}

static void test_skipped_sublayers_and_hidden_rows(forerun_bundle* bundle) {
  forerun_session* session;
  int32_t sequence, tokens[2] = {5, 6}, path[2] = {0, 1}, taps[2] = {0, 2};
  const int32_t skipping[4] = {0, 1, 4, 5};
  float keys[2 * 2 * 3], values[2 * 2 * 3], hidden[2 * 12];
  const forerun_session_options options = {2, 32, 2, NULL};
  CHECK(forerun_session_create(bundle, &options, &session) == FORERUN_OK);
  CHECK(forerun_sequence_create(session, &sequence) == FORERUN_OK);
  CHECK(forerun_stage(session, sequence, 2, tokens, NULL) == FORERUN_OK);
  forerun_row rows[2] = {{sequence, 1}, {sequence, 0}};
  forerun_request request = {rows, 2, skipping, 4, NULL, FORERUN_ALL, taps, 2, 0, NULL};
  forerun_result result;
  CHECK(forerun_forward(session, &request, &result) == FORERUN_OK);
  memcpy(hidden, result.taps, sizeof hidden);
  CHECK(forerun_commit(session, sequence, 2, path) == FORERUN_INEXACT_ROW);
  CHECK(forerun_read_kv(session, sequence, 2, 0, 2, keys, values) == FORERUN_OK);
  CHECK(forerun_read_kv(session, sequence, 1, 0, 2, keys, values) == FORERUN_NOT_COMPUTED);
  CHECK(forerun_commit(session, sequence, 0, NULL) == FORERUN_OK);
  CHECK(forerun_stage_hidden(session, sequence, 2, hidden, NULL, 2) == FORERUN_OK);
  request.steps = NULL;
  request.step_count = FORERUN_ALL;
  request.tap_count = 0;
  CHECK(forerun_forward(session, &request, &result) == FORERUN_OK);
  CHECK(forerun_commit(session, sequence, 2, path) == FORERUN_OK);
  CHECK(forerun_stage(session, sequence, 1, tokens, NULL) == FORERUN_OK);
  request.rows = rows + 1;
  request.row_count = 1;
  CHECK(forerun_forward(session, &request, &result) == FORERUN_NOT_COMPUTED);
  forerun_session_release(session);
}

static void test_profile(forerun_bundle* bundle) {
  enum { LAYERS = 3, KERNELS = 9, THREADS = 2, CELLS = THREADS * LAYERS * KERNELS };
  uint64_t ran[CELLS], waited[CELLS], core[THREADS], pass[3];
  forerun_session* session;
  const forerun_session_options options = {1, 32, THREADS, NULL};
  int32_t sequence, count, token = 4;
  forerun_kernel_facts facts;
  CHECK(forerun_bundle_kernel_count(bundle, &count) == FORERUN_OK && count == KERNELS);
  CHECK(forerun_bundle_kernel(bundle, KERNELS - 1, &facts) == FORERUN_OK &&
        strcmp(facts.name, "blocks") == 0);
  CHECK(forerun_bundle_kernel(bundle, KERNELS, &facts) == FORERUN_INVALID_ARGUMENT);
  CHECK(forerun_session_create(bundle, &options, &session) == FORERUN_OK);
  CHECK(forerun_sequence_create(session, &sequence) == FORERUN_OK);
  CHECK(forerun_profile_open(session) == FORERUN_OK);
  CHECK(forerun_profile_open(session) == FORERUN_INVALID_ARGUMENT);
  CHECK(forerun_profile_read(session, ran, waited, core) == FORERUN_NOT_COMPUTED);
  CHECK(forerun_stage(session, sequence, 1, &token, NULL) == FORERUN_OK);
  const forerun_row row = {sequence, 0};
  const forerun_request request = {&row, 1, NULL, FORERUN_ALL, NULL, FORERUN_ALL, NULL, 0, 0, NULL};
  forerun_result result;
  const long before = allocation_count();
  CHECK(forerun_forward(session, &request, &result) == FORERUN_OK);
  CHECK(forerun_profile_read(session, ran, waited, core) == FORERUN_OK);
  CHECK(allocation_count() == before); /* a profile's memory is all reserved when it is opened */
  uint64_t sums[THREADS];
  for (int t = 0; t < THREADS; ++t) {
    sums[t] = core[t];
    for (int i = t * LAYERS * KERNELS; i < (t + 1) * LAYERS * KERNELS; ++i) sums[t] += ran[i] + waited[i];
  }
  CHECK(sums[0] == sums[1] && (double)sums[0] >= result.elapsed_ms * 1e6 - 1);
  CHECK(forerun_measure_read(session, FORERUN_MEMORY_OWN, 1 << 20, 3, pass) == FORERUN_OK && pass[2] > 0);
  CHECK(forerun_measure_read(session, FORERUN_MEMORY_WEIGHTS, 1 << 30, 3, pass) == FORERUN_INVALID_ARGUMENT);
  CHECK(forerun_measure_read(session, 2, 1 << 20, 3, pass) == FORERUN_INVALID_ARGUMENT);
  CHECK(forerun_profile_close(session) == FORERUN_OK);
  forerun_session_release(session);
}

static void* walk_alone(void* bundle) {
  forerun_session* session;
  const forerun_session_options options = {1, 32, 2, NULL};
  CHECK(forerun_session_create(bundle, &options, &session) == FORERUN_OK);
  int32_t sequence, path[1] = {0};
  CHECK(forerun_sequence_create(session, &sequence) == FORERUN_OK);
  for (int32_t token = 0; token < 30; ++token) {
    const forerun_row row = {sequence, 0};
    const forerun_request request = {&row, 1, NULL, FORERUN_ALL, NULL, FORERUN_ALL, NULL, 0, 0, NULL};
    forerun_result result;
    CHECK(forerun_stage(session, sequence, 1, &token, NULL) == FORERUN_OK);
    CHECK(forerun_forward(session, &request, &result) == FORERUN_OK);
    CHECK(forerun_commit(session, sequence, 1, path) == FORERUN_OK);
  }
  forerun_session_release(session);
  return NULL;
}

static void test_sessions_side_by_side(forerun_bundle* bundle) {
  pthread_t threads[3];
  for (int i = 0; i < 3; ++i) CHECK(pthread_create(&threads[i], NULL, walk_alone, bundle) == 0);
  for (int i = 0; i < 3; ++i) CHECK(pthread_join(threads[i], NULL) == 0);
}

static void test_tokens(forerun_bundle* bundle) {
  test_example_of_the_header(bundle);
  test_skipped_sublayers_and_hidden_rows(bundle);
  test_profile(bundle);
  test_sessions_side_by_side(bundle);
  test_generate(bundle, 1, 1, 1500);
  test_generate(bundle, 2, 3, 1500);
  for (int32_t threads = 1; threads <= 4; ++threads)
    test_walk(bundle, (uint64_t)threads, threads, threads == 1 ? 12000 : 1500);
}

/* What the thread sanitizer is to see: it makes everything many times slower. */
static void test_only_threads(const char* folder, const char* library) {
  forerun_bundle* bundle;
  write_bundle(folder, library);
  CHECK(forerun_bundle_open(folder, NULL, &bundle) == FORERUN_OK);
  test_profile(bundle);
  test_sessions_side_by_side(bundle);
  test_generate(bundle, 2, 3, 100);
  for (int32_t threads = 2; threads <= 4; ++threads) test_walk(bundle, (uint64_t)threads, threads, 300);
  forerun_bundle_release(bundle);
  test_threads(folder);
  test_shared_text(folder);
  puts("ok");
}

int main(int count, char** arguments) {
  if (count == 4 && strcmp(arguments[3], "threads") == 0) {
    test_only_threads(arguments[2], arguments[1]);
    return 0;
  }
  if (count != 3) {
    fprintf(stderr, "usage: core_test LIBRARY FOLDER [threads]\n");
    return 2;
  }
  forerun_bundle* bundle;
  test_hash();
  test_cores(arguments[2]);
  write_bundle(arguments[2], arguments[1]);
  const long before = allocation_count();
  CHECK(forerun_bundle_open(arguments[2], NULL, &bundle) == FORERUN_OK);
  CHECK(allocation_count() > before); /* the counter counts */
  forerun_model model;
  CHECK(forerun_bundle_model(bundle, &model) == FORERUN_OK);
  if (model.feature_size > 0)
    test_features(bundle);
  else
    test_tokens(bundle);
  forerun_bundle_release(bundle);
  if (model.feature_size == 0) {
    test_threads(arguments[2]);
    test_faults(arguments[2]);
  }
  test_bad_bundles(arguments[2]);
  test_text(arguments[2]);
  test_permission(arguments[2]);
  puts("ok");
  return 0;
}
