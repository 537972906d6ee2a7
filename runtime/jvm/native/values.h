/* Values that cross between Kotlin and C, by copy. Texts are UTF-8 in byte arrays: JNI's own strings are not
 * UTF-8. Functions that return false, 0 or NULL leave a Java exception pending; their callers return at once.
 */
#ifndef FORERUN_JNI_VALUES_H
#define FORERUN_JNI_VALUES_H

#include <jni.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Symbols of the methods that ai.forerun.Native declares. */
#define NATIVE(type, name) JNIEXPORT type JNICALL Java_ai_forerun_Native_##name

/* The object of the core behind a handle, and back. */
#define OBJECT(type, handle) ((type*)(intptr_t)(handle))
#define HANDLE(object) ((jlong)(intptr_t)(object))

/* Throws ForerunException with forerun_last_error() unless `status` is FORERUN_OK. */
bool succeeded(JNIEnv* env, int status);

/* A text ended with NUL, to be freed; *text is NULL for a null array. `bytes` may be NULL. */
bool copy_text(JNIEnv* env, jbyteArray from, char** text, size_t* bytes);

/* An array of texts: freed by free_texts. */
typedef struct Texts {
  char** text;
  size_t* bytes;
  int32_t count;
} Texts;
bool copy_texts(JNIEnv* env, jobjectArray from, Texts* texts);
void free_texts(Texts* texts);

/* Integers, to be freed. */
bool copy_ints(JNIEnv* env, jintArray from, int32_t** values, int32_t* count);

/* Memory, to be freed. */
void* take_memory(JNIEnv* env, size_t bytes);

jbyteArray new_bytes(JNIEnv* env, const char* data, size_t bytes);
jintArray new_ints(JNIEnv* env, const int32_t* values, size_t count);

#endif
