/* Chats with a bundle in the terminal: chat BUNDLE
 * The conversation is given whole every time; what the session still holds of it is not computed again. */
#include <forerun/forerun.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_MESSAGES = 64, MOST_BYTES = 1 << 20, MOST_TOKENS = 512 };

typedef struct Answer {
  forerun_decoder* decoder;
  char text[1 << 16];
  size_t bytes;
} Answer;

static void check(int status) {
  if (status == FORERUN_OK) return;
  fprintf(stderr, "chat: %s\n", forerun_last_error());
  exit(1);
}

static void show(Answer* answer, forerun_piece piece) {
  const size_t room = sizeof answer->text - answer->bytes, bytes = piece.bytes < room ? piece.bytes : room;
  memcpy(answer->text + answer->bytes, piece.utf8, bytes);
  answer->bytes += bytes;
  fwrite(piece.utf8, 1, piece.bytes, stdout);
  fflush(stdout);
}

static int on_tokens(void* data, const int32_t* ids, int32_t* count) {
  for (int32_t i = 0; i < *count; ++i) {
    forerun_piece piece;
    check(forerun_decoder_feed(((Answer*)data)->decoder, ids[i], &piece));
    show(data, piece);
  }
  return 0;
}

int main(int count, char** arguments) {
  static char line[1 << 16], prompt[MOST_BYTES];
  static int32_t ids[MOST_BYTES];
  static Answer answer;
  forerun_bundle* bundle;
  forerun_session* session;
  forerun_generator* generator;
  forerun_text* text;
  forerun_text_facts facts;
  forerun_message messages[MOST_MESSAGES];
  int32_t sequence, said = 0;
  if (count != 2) return fprintf(stderr, "usage: chat BUNDLE\n"), 2;
  check(forerun_bundle_open(arguments[1], NULL, &bundle));
  check(forerun_session_create(bundle, NULL, &session));
  check(forerun_sequence_create(session, &sequence));
  check(forerun_generator_create(session, &generator));
  check(forerun_text_open(bundle, &text));
  check(forerun_text_describe(text, &facts));
  check(forerun_decoder_create(text, NULL, 0, &answer.decoder));
  while (said + 2 <= MOST_MESSAGES && printf("> ") && fflush(stdout) == 0 &&
         fgets(line, sizeof line, stdin)) {
    size_t bytes, tokens;
    forerun_finish finish;
    forerun_piece rest;
    forerun_generation wanted = {0};
    line[strcspn(line, "\n")] = 0;
    messages[said++] = (forerun_message){"user", strdup(line), strlen(line)};
    check(forerun_chat_prompt(text, messages, said, prompt, sizeof prompt, &bytes));
    check(forerun_encode(text, prompt, bytes, ids, MOST_BYTES, &tokens));
    wanted.max_tokens = MOST_TOKENS;
    wanted.end_token_ids = facts.end_ids;
    wanted.end_token_count = facts.end_count;
    answer.bytes = 0;
    check(forerun_generate_start(generator, sequence, ids, (int32_t)tokens, &wanted));
    check(forerun_generate(generator, sequence, on_tokens, &answer, &finish));
    check(forerun_decoder_flush(answer.decoder, &rest));
    show(&answer, rest);
    printf("\n");
    messages[said++] = (forerun_message){"assistant", strndup(answer.text, answer.bytes), answer.bytes};
  }
  forerun_decoder_release(answer.decoder);
  forerun_text_release(text);
  forerun_generator_release(generator);
  forerun_session_release(session);
  forerun_bundle_release(bundle);
  return 0;
}
