/* Answers and bundles begun and ended many times: cycles BUNDLE CYCLES LOADS.
 *
 * Prints what the process holds after a first tenth and after all of them, once for answers (started,
 * stepped, cancelled, rewound, saved, restored) and once for loading and unloading: heap bytes in use, mapped
 * kilobytes, mappings, file descriptors, threads. The model has the vocabulary of tiny_program.c.
 */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "test_helpers.h"

enum { VOCABULARY = 37, PROMPT = 6 };

static const char* const kDrafters[][3] = {
    {"none", NULL, NULL},
    {"auto", NULL, NULL},
    {"lookup:min_ngram=1,branches=4", "tree:branches=2+2+1", NULL},
    {"self:layers=2", "grown:reach=0,rows=9,width=3", NULL},
    {"self:skip=a1+f1", "cape:siblings=2", "confidence:layers=1,threshold=0.04"},
};

static uint64_t random_state = 1;

static void report(const char* what) {
  long pages;
  int mappings = 0;
  const size_t heap = mallinfo2().uordblks; /* before this function takes any itself */
  FILE* file = fopen("/proc/self/statm", "r");
  CHECK(file != NULL && fscanf(file, "%ld", &pages) == 1);
  fclose(file);
  file = fopen("/proc/self/maps", "r");
  CHECK(file != NULL);
  for (int byte = fgetc(file); byte != EOF; byte = fgetc(file)) mappings += byte == '\n';
  fclose(file);
  printf("%s heap %zu kilobytes %ld mappings %d files %d threads %d\n", what, heap, pages * 4, mappings,
         entries_of("/proc/self/fd") - 1, entries_of("/proc/self/task"));
}

static void start(forerun_generator* generator, int32_t sequence, const char* const* spec, int32_t tokens) {
  int32_t prompt[PROMPT] = {1, 2, 3, 1, 2, pick(&random_state, VOCABULARY)};
  const forerun_generation wanted = {spec[0], spec[1], spec[2], {0, 0, 1, 0}, tokens, NULL, 0};
  CHECK(forerun_generate_start(generator, sequence, prompt, PROMPT, &wanted) == FORERUN_OK);
}

static void answer(forerun_session* session, forerun_generator* generator, int32_t sequence) {
  int32_t token_ids[FORERUN_MOST_DRAWN], drawn = 0;
  forerun_finish finish = FORERUN_FINISH_NONE;
  start(generator, sequence, kDrafters[pick(&random_state, sizeof kDrafters / sizeof *kDrafters)],
        1 + pick(&random_state, 40));
  for (int32_t step = pick(&random_state, 6); step > 0 && finish == FORERUN_FINISH_NONE; --step) {
    CHECK(forerun_generate_next(generator, sequence, token_ids, &drawn, &finish) == FORERUN_OK);
    if (drawn > 0)
      CHECK(forerun_generate_keep(generator, sequence, 1 + pick(&random_state, drawn)) == FORERUN_OK);
  }
  forerun_cancel(generator, sequence);
  CHECK(forerun_generate_next(generator, sequence, token_ids, &drawn, &finish) == FORERUN_OK);
  CHECK(finish != FORERUN_FINISH_NONE);
  if (pick(&random_state, 2)) CHECK(forerun_rewind(session, sequence, 0) == FORERUN_OK);
}

static void run_answers(const char* path, int32_t cycles) {
  const forerun_session_options options = {1, 48, 1, NULL};
  forerun_bundle* bundle;
  forerun_session* session;
  forerun_generator* generator;
  int32_t sequence;
  CHECK(forerun_bundle_open(path, NULL, &bundle) == FORERUN_OK);
  CHECK(forerun_session_create(bundle, &options, &session) == FORERUN_OK);
  CHECK(forerun_sequence_create(session, &sequence) == FORERUN_OK);
  CHECK(forerun_generator_create(session, &generator) == FORERUN_OK);
  for (int32_t cycle = 1; cycle <= cycles; ++cycle) {
    answer(session, generator, sequence);
    if (cycle % 50 == 0) {
      CHECK(forerun_sequence_save(session, sequence, "saved") == FORERUN_OK);
      CHECK(forerun_sequence_release(session, sequence) == FORERUN_OK);
      CHECK(forerun_sequence_restore(session, "saved", &sequence) == FORERUN_OK);
    }
    if (cycle != cycles / 10 && cycle != cycles) continue;
    start(generator, sequence, kDrafters[0], 1); /* the same drafter is held whenever memory is counted */
    report("answers");
  }
  forerun_generator_release(generator);
  forerun_session_release(session);
  forerun_bundle_release(bundle);
}

static void load_once(const char* path, int32_t load) {
  const forerun_session_options options = {2, 64, 1 + load % 3, NULL};
  forerun_bundle* bundle;
  forerun_session* session;
  forerun_generator* generator;
  int32_t sequence;
  CHECK(forerun_bundle_open(path, "missing", &bundle) != FORERUN_OK);
  CHECK(forerun_bundle_open(path, NULL, &bundle) == FORERUN_OK);
  CHECK(forerun_session_create(bundle, &options, &session) == FORERUN_OK);
  forerun_bundle_release(bundle); /* the session holds it */
  CHECK(forerun_sequence_create(session, &sequence) == FORERUN_OK);
  CHECK(forerun_generator_create(session, &generator) == FORERUN_OK);
  answer(session, generator, sequence);
  forerun_generator_release(generator);
  forerun_session_release(session);
}

int main(int count, char** arguments) {
  static char lines[4096]; /* printf would take memory of its own */
  if (count != 4) return 2;
  setvbuf(stdout, lines, _IOFBF, sizeof lines);
  const int32_t loads = atoi(arguments[3]);
  run_answers(arguments[1], atoi(arguments[2]));
  for (int32_t load = 1; load <= loads; ++load) {
    load_once(arguments[1], load);
    if (load == loads / 10 || load == loads) report("loads");
  }
  return 0;
}
