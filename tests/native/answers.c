/* Answers prompts with the generate loop: answers BUNDLE TARGET THREADS FILE, a prompt on each line of the
 * standard input: drafter|shape|exit|temperature|top_k|seed|max_tokens|id id id … ("-": the default).
 *
 * Prints for each answer its ids and its acceptance trace. Between two answers the sequence is saved to FILE
 * and restored. TARGET may be "-" for the best that runs here. Built with LINKED, the table of a package's
 * programs, it loads no library.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "test_program.h"

enum { MOST = 4096, LINE = 1 << 16, CAPACITY = 512, FIELDS = 8 };

static int print_ids(void* data, const int32_t* token_ids, int32_t* drawn) {
  (void)data;
  for (int32_t i = 0; i < *drawn; ++i) printf(" %d", token_ids[i]);
  return 0;
}

static void print_counts(const char* name, const int64_t* counts, int32_t count) {
  while (count > 0 && counts[count - 1] == 0) --count;
  printf("%s", name);
  for (int32_t i = 0; i < count; ++i) printf(" %lld", (long long)counts[i]);
  printf("\n");
}

static const char* given(const char* field) {
  return strcmp(field, "-") ? field : NULL;
}

static void answer(forerun_generator* generator, int32_t sequence, char* line, int32_t layers) {
  char* fields[FIELDS];
  int32_t prompt[MOST], count = 0;
  for (int i = 0; i < FIELDS; ++i) {
    fields[i] = line;
    line += strcspn(line, "|\n");
    *line++ = 0;
  }
  for (char* at = strtok(fields[7], " "); at != NULL && count < MOST; at = strtok(NULL, " "))
    prompt[count++] = atoi(at);
  const forerun_generation wanted = {given(fields[0]),
                                     given(fields[1]),
                                     given(fields[2]),
                                     {atof(fields[3]), atoi(fields[4]), 1, strtoull(fields[5], NULL, 10)},
                                     atoi(fields[6]),
                                     NULL,
                                     0};
  forerun_finish finish;
  forerun_statistics facts;
  int64_t exits[MOST];
  CHECK(forerun_generate_start(generator, sequence, prompt, count, &wanted));
  printf("ids");
  CHECK(forerun_generate(generator, sequence, print_ids, NULL, &finish));
  CHECK(forerun_generate_statistics(generator, sequence, &facts));
  CHECK(forerun_generate_exits(generator, sequence, exits));
  printf("\nverify_calls %lld\n", (long long)facts.verify_calls);
  print_counts("drafted", facts.drafted_at, FORERUN_MOST_DRAWN);
  print_counts("accepted", facts.accepted_at, FORERUN_MOST_DRAWN);
  print_counts("exits", exits, layers);
}

int main(int count, char** arguments) {
  static char line[LINE];
  forerun_bundle* bundle;
  forerun_session* session;
  forerun_generator* generator;
  forerun_model model;
  int32_t sequence;
  if (count != 5) return 2;
  open_bundle(arguments, &bundle);
  CHECK(forerun_bundle_model(bundle, &model));
  const int32_t capacity = model.context_length < CAPACITY ? model.context_length : CAPACITY;
  const forerun_session_options options = {1, capacity, atoi(arguments[3]), NULL};
  CHECK(forerun_session_create(bundle, &options, &session));
  CHECK(forerun_sequence_create(session, &sequence));
  CHECK(forerun_generator_create(session, &generator));
  while (fgets(line, sizeof line, stdin) != NULL) {
    answer(generator, sequence, line, model.layers);
    CHECK(forerun_sequence_save(session, sequence, arguments[4]));
    CHECK(forerun_sequence_release(session, sequence));
    CHECK(forerun_sequence_restore(session, arguments[4], &sequence));
  }
  forerun_generator_release(generator);
  forerun_session_release(session);
  forerun_bundle_release(bundle);
  return 0;
}
