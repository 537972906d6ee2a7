/* Bundles and sessions: a native method for each call of the core's. */
#include "values.h"

#include <forerun/forerun.h>
#include <stdlib.h>
#include <string.h>

/* Compiled into an app with -DFORERUN_PACKAGE_NAME=name, the name of a package of `forerun package`,
 * Bundle.open takes the programs that are linked into the app; without, it loads a bundle's library. */
#ifdef FORERUN_PACKAGE_NAME
#define TEXT_OF(...) #__VA_ARGS__
#define INCLUDE_OF(name) TEXT_OF(name.h)
#define JOIN(name) forerun_##name##_programs
#define PROGRAMS_OF(name) JOIN(name)
#include INCLUDE_OF(FORERUN_PACKAGE_NAME)
#endif

/* A session with the one sequence that its answers are in, and their loop. */
typedef struct Session {
  forerun_session* session;
  forerun_generator* generator;
  int32_t sequence;
} Session;

#define SESSION(handle) OBJECT(Session, handle)

static int open_bundle(const char* path, const char* target, forerun_bundle** bundle) {
#ifdef FORERUN_PACKAGE_NAME
  const forerun_linked* programs = PROGRAMS_OF(FORERUN_PACKAGE_NAME);
  const size_t bytes = sizeof PROGRAMS_OF(FORERUN_PACKAGE_NAME);
  const int32_t count = (int32_t)(bytes / sizeof *programs);
  return forerun_bundle_open_linked_for(path, programs, count, target, bundle);
#else
  return forerun_bundle_open(path, target, bundle);
#endif
}

NATIVE(jbyteArray, version)(JNIEnv* env, jclass type) {
  (void)type;
  return new_bytes(env, forerun_version(), strlen(forerun_version()));
}

/* ---- Bundles ---- */

NATIVE(jlong, openBundle)(JNIEnv* env, jclass type, jbyteArray path, jbyteArray target) {
  (void)type;
  char *path_text = NULL, *target_text = NULL;
  forerun_bundle* bundle = NULL;
  if (copy_text(env, path, &path_text, NULL) && copy_text(env, target, &target_text, NULL)) {
    succeeded(env, open_bundle(path_text, target_text, &bundle));
  }
  free(path_text);
  free(target_text);
  return HANDLE(bundle);
}

NATIVE(void, releaseBundle)(JNIEnv* env, jclass type, jlong bundle) {
  (void)env, (void)type;
  forerun_bundle_release(OBJECT(forerun_bundle, bundle));
}

NATIVE(jbyteArray, bundleTarget)(JNIEnv* env, jclass type, jlong bundle) {
  (void)type;
  const char* name = forerun_bundle_target(OBJECT(forerun_bundle, bundle));
  return new_bytes(env, name, strlen(name));
}

NATIVE(jintArray, bundleSizes)(JNIEnv* env, jclass type, jlong bundle) {
  (void)type;
  forerun_model model;
  if (!succeeded(env, forerun_bundle_model(OBJECT(forerun_bundle, bundle), &model))) return NULL;
  const int32_t sizes[] = {model.layers, model.hidden_size, model.vocabulary_size, model.context_length};
  return new_ints(env, sizes, sizeof sizes / sizeof *sizes);
}

/* ---- Sessions ---- */

static void release_session(Session* session) {
  forerun_generator_release(session->generator);
  forerun_session_release(session->session);
  free(session);
}

NATIVE(jlong, createSession)(JNIEnv* env, jclass type, jlong bundle, jint capacity, jint threads) {
  (void)type;
  Session* made = take_memory(env, sizeof *made);
  if (made == NULL) return 0;
  *made = (Session){NULL, NULL, 0};
  const forerun_session_options options = {1, capacity, threads, NULL};
  if (succeeded(env, forerun_session_create(OBJECT(forerun_bundle, bundle), &options, &made->session)) &&
      succeeded(env, forerun_sequence_create(made->session, &made->sequence)) &&
      succeeded(env, forerun_generator_create(made->session, &made->generator))) {
    return HANDLE(made);
  }
  release_session(made);
  return 0;
}

NATIVE(void, releaseSession)(JNIEnv* env, jclass type, jlong session) {
  (void)env, (void)type;
  release_session(SESSION(session));
}

NATIVE(jintArray, sessionOptions)(JNIEnv* env, jclass type, jlong session) {
  (void)type;
  forerun_session_options options;
  if (!succeeded(env, forerun_session_describe(SESSION(session)->session, &options))) return NULL;
  return new_ints(env, (const int32_t[]){options.capacity, options.threads}, 2);
}

NATIVE(jint, sessionLength)(JNIEnv* env, jclass type, jlong session) {
  (void)type;
  forerun_sequence_state state = {0, 0, 0};
  succeeded(env, forerun_sequence_describe(SESSION(session)->session, SESSION(session)->sequence, &state));
  return state.length;
}

NATIVE(void, rewind)(JNIEnv* env, jclass type, jlong session, jint length) {
  (void)type;
  succeeded(env, forerun_rewind(SESSION(session)->session, SESSION(session)->sequence, length));
}

/* ---- Answers ---- */

NATIVE(void, start)(JNIEnv* env, jclass type, jlong session, jintArray prompt, jobjectArray specs,
                    jdouble temperature, jint top_k, jdouble top_p, jlong seed, jint max_tokens) {
  (void)type;
  Texts texts;
  int32_t *ids = NULL, count = 0;
  if (!copy_texts(env, specs, &texts)) return;
  if (copy_ints(env, prompt, &ids, &count)) {
    const forerun_sampling sampling = {temperature, top_k, top_p, (uint64_t)seed};
    const forerun_generation wanted = {
        texts.text[0], texts.text[1], texts.text[2], sampling, max_tokens, NULL, 0};
    const Session* used = SESSION(session);
    succeeded(env, forerun_generate_start(used->generator, used->sequence, ids, count, &wanted));
  }
  free_texts(&texts);
  free(ids);
}

/* Writes the tokens drawn to token_ids [FORERUN_MOST_DRAWN] and returns how many; the negated forerun_finish
 * when the answer is over. */
NATIVE(jint, next)(JNIEnv* env, jclass type, jlong session, jintArray token_ids) {
  (void)type;
  int32_t drawn[FORERUN_MOST_DRAWN], count = 0;
  forerun_finish finish = FORERUN_FINISH_NONE;
  const Session* used = SESSION(session);
  if (!succeeded(env, forerun_generate_next(used->generator, used->sequence, drawn, &count, &finish)))
    return 0;
  if (finish != FORERUN_FINISH_NONE) return -(jint)finish;
  (*env)->SetIntArrayRegion(env, token_ids, 0, count, drawn);
  return count;
}

NATIVE(void, keep)(JNIEnv* env, jclass type, jlong session, jint count) {
  (void)type;
  succeeded(env, forerun_generate_keep(SESSION(session)->generator, SESSION(session)->sequence, count));
}

NATIVE(void, cancel)(JNIEnv* env, jclass type, jlong session) {
  (void)env, (void)type;
  forerun_cancel(SESSION(session)->generator, SESSION(session)->sequence);
}

/* The counters of forerun_statistics in its order; the times to times_ms [4]. */
NATIVE(jlongArray, statistics)(JNIEnv* env, jclass type, jlong session, jdoubleArray times_ms) {
  (void)type;
  forerun_statistics found;
  const Session* used = SESSION(session);
  if (!succeeded(env, forerun_generate_statistics(used->generator, used->sequence, &found))) return NULL;
  const jlong counts[] = {found.prompt_tokens, found.cached_tokens, found.generated_tokens,
                          found.verify_calls,  found.drafted,       found.accepted};
  const jdouble times[] = {found.prefill_ms, found.draft_ms, found.verify_ms, found.commit_ms};
  const jsize size = sizeof counts / sizeof *counts;
  jlongArray made = (*env)->NewLongArray(env, size);
  if (made == NULL) return NULL;
  (*env)->SetLongArrayRegion(env, made, 0, size, counts);
  (*env)->SetDoubleArrayRegion(env, times_ms, 0, sizeof times / sizeof *times, times);
  return made;
}

/* ---- Costs ---- */

/* Writes the costs to rows and ms [FORERUN_MOST_COSTS] and returns how many there are; negated if not whole.
 */
static jint give_costs(JNIEnv* env, const forerun_costs* costs, jintArray rows, jdoubleArray ms) {
  (*env)->SetIntArrayRegion(env, rows, 0, costs->count, costs->rows);
  (*env)->SetDoubleArrayRegion(env, ms, 0, costs->count, costs->ms);
  return costs->whole ? costs->count : -costs->count;
}

NATIVE(jint, tune)(JNIEnv* env, jclass type, jlong session, jintArray rows, jdoubleArray ms) {
  (void)type;
  forerun_costs costs;
  const Session* used = SESSION(session);
  if (!succeeded(env, forerun_tune(used->generator, used->sequence, &costs))) return 0;
  return give_costs(env, &costs, rows, ms);
}

NATIVE(jint, costs)(JNIEnv* env, jclass type, jlong session, jintArray rows, jdoubleArray ms) {
  (void)type;
  forerun_costs costs;
  if (!succeeded(env, forerun_get_costs(SESSION(session)->generator, &costs))) return 0;
  return give_costs(env, &costs, rows, ms);
}

/* At most FORERUN_MOST_COSTS of them: Costs holds no more. */
NATIVE(void, setCosts)(JNIEnv* env, jclass type, jlong session, jintArray rows, jdoubleArray ms) {
  (void)type;
  forerun_costs costs = {(*env)->GetArrayLength(env, rows), 1, {0}, {0}};
  (*env)->GetIntArrayRegion(env, rows, 0, costs.count, costs.rows);
  (*env)->GetDoubleArrayRegion(env, ms, 0, costs.count, costs.ms);
  succeeded(env, forerun_set_costs(SESSION(session)->generator, &costs));
}
