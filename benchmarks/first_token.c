/* Times the way from nothing to the first token, as an app sees it: first_token BUNDLE THREADS PROMPT_TOKENS
 * Prints milliseconds: opening the bundle, making the session and the generator, reading the prompt up to its first
 * token, and all of it. */
#define _POSIX_C_SOURCE 199309L
#include <forerun/forerun.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static void check(int status) {
  if (status == FORERUN_OK) return;
  fprintf(stderr, "first_token: %s\n", forerun_last_error());
  exit(1);
}

static double now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return 1e3 * (double)now.tv_sec + 1e-6 * (double)now.tv_nsec;
}

int main(int count, char** arguments) {
  forerun_bundle* bundle;
  forerun_session* session;
  forerun_generator* generator;
  forerun_model model;
  forerun_session_options options = {0};
  forerun_generation wanted = {0};
  forerun_finish finish = FORERUN_FINISH_NONE;
  int32_t sequence, drawn = 0, tokens[FORERUN_MOST_DRAWN], prompt[4096];
  if (count != 4) return fprintf(stderr, "usage: first_token BUNDLE THREADS PROMPT_TOKENS\n"), 2;
  options.threads = atoi(arguments[2]);
  const int32_t length = atoi(arguments[3]);
  if (length < 1 || length > 4096) return fprintf(stderr, "first_token: 1 to 4096 tokens\n"), 2;
  const double begin = now_ms();
  check(forerun_bundle_open(arguments[1], NULL, &bundle));
  const double opened = now_ms();
  check(forerun_session_create(bundle, &options, &session));
  check(forerun_sequence_create(session, &sequence));
  check(forerun_generator_create(session, &generator));
  check(forerun_bundle_model(bundle, &model));
  const double ready = now_ms();
  for (int32_t i = 0; i < length; ++i) prompt[i] = (int32_t)((7919LL * (i + 1)) % model.vocabulary_size);
  wanted.max_tokens = 2;
  check(forerun_generate_start(generator, sequence, prompt, length, &wanted));
  while (drawn == 0 && finish == FORERUN_FINISH_NONE)
    check(forerun_generate_next(generator, sequence, tokens, &drawn, &finish));
  const double done = now_ms();
  printf("%.3f %.3f %.3f %.3f\n", opened - begin, ready - opened, done - ready, done - begin);
  forerun_generator_release(generator);
  forerun_session_release(session);
  forerun_bundle_release(bundle);
  return 0;
}
