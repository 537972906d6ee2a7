/* Threads beside each other: answers cancelled from outside, sessions that share a team or a bundle. For the
 * thread sanitizer above all. */
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "core_test.h"

enum { ROUNDS = 60, ANSWERS = 40 };

typedef struct cancelled {
  forerun_generator* generator;
  atomic_int over;
} cancelled;

static void* cancel_often(void* argument) {
  cancelled* const shared = argument;
  while (!atomic_load(&shared->over)) forerun_cancel(shared->generator, 0);
  return NULL;
}

/* From before the first answer begins. */
static void test_cancel(forerun_bundle* bundle) {
  const forerun_session_options options = {1, 64, 2, NULL};
  const forerun_generation wanted = {"self:layers=1", NULL, NULL, {0, 0, 1, 0}, 40, NULL, 0};
  const int32_t prompt[3] = {1, 2, 3};
  cancelled shared = {NULL, 0};
  forerun_session* session;
  forerun_finish finish;
  pthread_t thread;
  int32_t sequence;
  CHECK(forerun_session_create(bundle, &options, &session) == FORERUN_OK);
  CHECK(forerun_sequence_create(session, &sequence) == FORERUN_OK);
  CHECK(forerun_generator_create(session, &shared.generator) == FORERUN_OK);
  CHECK(pthread_create(&thread, NULL, cancel_often, &shared) == 0);
  for (int answer = 0; answer < ANSWERS; ++answer) {
    CHECK(forerun_generate_start(shared.generator, sequence, prompt, 3, &wanted) == FORERUN_OK);
    CHECK(forerun_generate(shared.generator, sequence, NULL, NULL, &finish) == FORERUN_OK);
    CHECK(finish == FORERUN_FINISH_CANCELLED || finish == FORERUN_FINISH_LENGTH);
  }
  atomic_store(&shared.over, 1);
  CHECK(pthread_join(thread, NULL) == 0);
  forerun_generator_release(shared.generator);
  forerun_session_release(session);
}

/* One of two sessions on the same team: each call is done or refused whole. */
static void* use_or_be_refused(void* argument) {
  forerun_session* const session = argument;
  const int32_t path[1] = {0};
  const forerun_row row = {0, 0};
  const forerun_request request = {&row, 1, NULL, FORERUN_ALL, NULL, FORERUN_ALL, NULL, 0, 0, NULL};
  for (int32_t token = 0; token < 30; ++token) {
    forerun_result result;
    int status;
    while ((status = forerun_stage(session, 0, 1, &token, NULL)) == FORERUN_BUSY) continue;
    CHECK(status == FORERUN_OK);
    while ((status = forerun_forward(session, &request, &result)) == FORERUN_BUSY) continue;
    CHECK(status == FORERUN_OK);
    while ((status = forerun_commit(session, 0, 1, path)) == FORERUN_BUSY) continue;
    CHECK(status == FORERUN_OK);
  }
  return NULL;
}

static void test_shared_team(forerun_bundle* bundle) {
  forerun_session_options options = {1, 32, 2, NULL};
  forerun_session *first, *second;
  pthread_t threads[2];
  int32_t sequence;
  CHECK(forerun_session_create(bundle, &options, &first) == FORERUN_OK);
  options = (forerun_session_options){1, 32, 0, first};
  CHECK(forerun_session_create(bundle, &options, &second) == FORERUN_OK);
  CHECK(forerun_sequence_create(first, &sequence) == FORERUN_OK);
  CHECK(forerun_sequence_create(second, &sequence) == FORERUN_OK);
  CHECK(pthread_create(&threads[0], NULL, use_or_be_refused, first) == 0);
  CHECK(pthread_create(&threads[1], NULL, use_or_be_refused, second) == 0);
  for (int i = 0; i < 2; ++i) CHECK(pthread_join(threads[i], NULL) == 0);
  forerun_session_release(first);
  forerun_session_release(second);
}

typedef struct saver {
  forerun_bundle* bundle;
  char path[4096];
} saver;

/* Sessions of their own over one bundle, held by whoever goes last; each its own file. */
static void* save_and_restore(void* argument) {
  saver* const own = argument;
  const forerun_session_options options = {1, 32, 2, NULL};
  const int32_t tokens[4] = {1, 2, 3, 4}, path[4] = {0, 1, 2, 3};
  const forerun_row rows[4] = {{0, 0}, {0, 1}, {0, 2}, {0, 3}};
  const forerun_request request = {rows, 4, NULL, FORERUN_ALL, NULL, 0, NULL, 0, 0, NULL};
  for (int round = 0; round < ROUNDS / 10; ++round) {
    forerun_session* session;
    forerun_result result;
    int32_t sequence, count, ids[4];
    CHECK(forerun_session_create(own->bundle, &options, &session) == FORERUN_OK);
    CHECK(forerun_sequence_create(session, &sequence) == FORERUN_OK);
    CHECK(forerun_stage(session, sequence, 4, tokens, NULL) == FORERUN_OK);
    CHECK(forerun_forward(session, &request, &result) == FORERUN_OK);
    CHECK(forerun_commit(session, sequence, 4, path) == FORERUN_OK);
    CHECK(forerun_sequence_save(session, sequence, own->path) == FORERUN_OK);
    CHECK(forerun_sequence_release(session, sequence) == FORERUN_OK);
    CHECK(forerun_sequence_restore(session, own->path, &sequence) == FORERUN_OK);
    CHECK(forerun_sequence_tokens(session, sequence, ids, 4, &count) == FORERUN_OK && count == 4);
    CHECK(memcmp(ids, tokens, sizeof ids) == 0);
    forerun_session_release(session);
  }
  return NULL;
}

void test_threads(const char* folder) {
  static saver savers[3];
  pthread_t threads[3];
  forerun_bundle* bundle;
  CHECK(forerun_bundle_open(folder, NULL, &bundle) == FORERUN_OK);
  test_cancel(bundle);
  test_shared_team(bundle);
  for (int i = 0; i < 3; ++i) {
    savers[i].bundle = bundle;
    snprintf(savers[i].path, sizeof savers[i].path, "%s/saved%d", folder, i);
    CHECK(pthread_create(&threads[i], NULL, save_and_restore, &savers[i]) == 0);
  }
  for (int i = 0; i < 3; ++i) CHECK(pthread_join(threads[i], NULL) == 0);
  forerun_bundle_release(bundle);
}
