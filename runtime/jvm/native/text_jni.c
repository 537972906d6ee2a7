/* Tokenizer, chat template and decoders: a native method for each call of the core's. */
#include "values.h"

#include <forerun/forerun.h>
#include <stdlib.h>
#include <string.h>

#define TEXT(handle) OBJECT(forerun_text, handle)
#define DECODER(handle) OBJECT(forerun_decoder, handle)

NATIVE(jlong, openText)(JNIEnv* env, jclass type, jlong bundle) {
  (void)type;
  forerun_text* text = NULL;
  succeeded(env, forerun_text_open(OBJECT(forerun_bundle, bundle), &text));
  return HANDLE(text);
}

NATIVE(void, releaseText)(JNIEnv* env, jclass type, jlong text) {
  (void)env, (void)type;
  forerun_text_release(TEXT(text));
}

/* The id to put before raw prompts or -1, whether there is a chat template, and the ids that end an answer.
 */
NATIVE(jintArray, textFacts)(JNIEnv* env, jclass type, jlong text) {
  (void)type;
  forerun_text_facts facts;
  if (!succeeded(env, forerun_text_describe(TEXT(text), &facts))) return NULL;
  int32_t* listed = take_memory(env, (size_t)(2 + facts.end_count) * sizeof(int32_t));
  if (listed == NULL) return NULL;
  listed[0] = facts.add_bos ? facts.bos_id : -1;
  listed[1] = facts.has_chat;
  if (facts.end_count > 0) memcpy(listed + 2, facts.end_ids, (size_t)facts.end_count * sizeof(int32_t));
  jintArray made = new_ints(env, listed, (size_t)(2 + facts.end_count));
  free(listed);
  return made;
}

NATIVE(jintArray, encode)(JNIEnv* env, jclass type, jlong text, jbyteArray utf8) {
  (void)type;
  char* given = NULL;
  size_t bytes = 0, count = 0;
  if (!copy_text(env, utf8, &given, &bytes)) return NULL;
  jintArray made = NULL;
  size_t room = bytes + 16;
  int32_t* ids = take_memory(env, room * sizeof(int32_t));
  int status = ids != NULL ? forerun_encode(TEXT(text), given, bytes, ids, room, &count) : FORERUN_OK;
  if (status != FORERUN_OK && count > room) {
    room = count;
    free(ids);
    ids = take_memory(env, room * sizeof(int32_t));
    status = ids != NULL ? forerun_encode(TEXT(text), given, bytes, ids, room, &count) : FORERUN_OK;
  }
  if (ids != NULL && succeeded(env, status)) made = new_ints(env, ids, count);
  free(ids);
  free(given);
  return made;
}

NATIVE(jbyteArray, decode)(JNIEnv* env, jclass type, jlong text, jintArray token_ids) {
  (void)type;
  int32_t *ids = NULL, count = 0;
  size_t bytes = 0;
  char* made = NULL;
  jbyteArray given = NULL;
  if (copy_ints(env, token_ids, &ids, &count) &&
      succeeded(env, forerun_decode(TEXT(text), ids, (size_t)count, NULL, 0, &bytes)) &&
      (made = take_memory(env, bytes)) != NULL &&
      succeeded(env, forerun_decode(TEXT(text), ids, (size_t)count, made, bytes, &bytes))) {
    given = new_bytes(env, made, bytes);
  }
  free(made);
  free(ids);
  return given;
}

static jbyteArray write_prompt(JNIEnv* env, const forerun_text* text, const Texts* roles,
                               const Texts* contents) {
  forerun_message* messages = take_memory(env, (size_t)roles->count * sizeof *messages);
  if (messages == NULL) return NULL;
  for (int32_t i = 0; i < roles->count; ++i) {
    messages[i] = (forerun_message){roles->text[i], contents->text[i], contents->bytes[i]};
  }
  size_t bytes = 0;
  char* prompt = NULL;
  jbyteArray made = NULL;
  if (succeeded(env, forerun_chat_prompt(text, messages, roles->count, NULL, 0, &bytes)) &&
      (prompt = take_memory(env, bytes)) != NULL &&
      succeeded(env, forerun_chat_prompt(text, messages, roles->count, prompt, bytes, &bytes))) {
    made = new_bytes(env, prompt, bytes);
  }
  free(prompt);
  free(messages);
  return made;
}

/* roles and contents [messages]. */
NATIVE(jbyteArray, chatPrompt)(JNIEnv* env, jclass type, jlong text, jobjectArray roles,
                               jobjectArray contents) {
  (void)type;
  Texts role_texts, content_texts;
  jbyteArray made = NULL;
  if (!copy_texts(env, roles, &role_texts)) return NULL;
  if (copy_texts(env, contents, &content_texts)) {
    made = write_prompt(env, TEXT(text), &role_texts, &content_texts);
    free_texts(&content_texts);
  }
  free_texts(&role_texts);
  return made;
}

/* ---- Decoders ---- */

NATIVE(jlong, createDecoder)(JNIEnv* env, jclass type, jlong text, jobjectArray stops) {
  (void)type;
  Texts texts;
  forerun_decoder* decoder = NULL;
  if (!copy_texts(env, stops, &texts)) return 0;
  succeeded(env, forerun_decoder_create(TEXT(text), (const char* const*)texts.text, texts.count, &decoder));
  free_texts(&texts);
  return HANDLE(decoder);
}

NATIVE(void, releaseDecoder)(JNIEnv* env, jclass type, jlong decoder) {
  (void)env, (void)type;
  forerun_decoder_release(DECODER(decoder));
}

/* The text that a token makes certain; whether a stop string was found to stopped [1]. */
NATIVE(jbyteArray, feed)(JNIEnv* env, jclass type, jlong decoder, jint token_id, jbooleanArray stopped) {
  (void)type;
  forerun_piece piece;
  if (!succeeded(env, forerun_decoder_feed(DECODER(decoder), token_id, &piece))) return NULL;
  const jboolean found = piece.stopped != 0;
  (*env)->SetBooleanArrayRegion(env, stopped, 0, 1, &found);
  return new_bytes(env, piece.utf8, piece.bytes);
}

NATIVE(jbyteArray, flush)(JNIEnv* env, jclass type, jlong decoder) {
  (void)type;
  forerun_piece piece;
  if (!succeeded(env, forerun_decoder_flush(DECODER(decoder), &piece))) return NULL;
  return new_bytes(env, piece.utf8, piece.bytes);
}
