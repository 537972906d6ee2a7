#include "values.h"

#include <forerun/forerun.h>
#include <stdlib.h>
#include <string.h>

bool succeeded(JNIEnv* env, int status) {
  if (status == FORERUN_OK) return true;
  const char* text = forerun_last_error();
  jbyteArray message = new_bytes(env, text, strlen(text));
  jclass type = message != NULL ? (*env)->FindClass(env, "ai/forerun/ForerunException") : NULL;
  jmethodID create = type != NULL ? (*env)->GetMethodID(env, type, "<init>", "(I[B)V") : NULL;
  jobject exception = create != NULL ? (*env)->NewObject(env, type, create, (jint)status, message) : NULL;
  if (exception != NULL) (*env)->Throw(env, exception);
  return false;
}

void* take_memory(JNIEnv* env, size_t bytes) {
  void* memory = malloc(bytes > 0 ? bytes : 1);
  if (memory != NULL) return memory;
  jclass type = (*env)->FindClass(env, "java/lang/OutOfMemoryError");
  if (type != NULL) (*env)->ThrowNew(env, type, "no native memory for an array");
  return NULL;
}

bool copy_text(JNIEnv* env, jbyteArray from, char** text, size_t* bytes) {
  *text = NULL;
  if (from == NULL) return true;
  const jsize size = (*env)->GetArrayLength(env, from);
  *text = take_memory(env, (size_t)size + 1);
  if (*text == NULL) return false;
  (*env)->GetByteArrayRegion(env, from, 0, size, (jbyte*)*text);
  (*text)[size] = 0;
  if (bytes != NULL) *bytes = (size_t)size;
  return true;
}

bool copy_texts(JNIEnv* env, jobjectArray from, Texts* texts) {
  const jsize count = (*env)->GetArrayLength(env, from);
  *texts = (Texts){NULL, NULL, 0};
  texts->text = take_memory(env, (size_t)count * sizeof(char*));
  texts->bytes = texts->text != NULL ? take_memory(env, (size_t)count * sizeof(size_t)) : NULL;
  bool copied = texts->bytes != NULL;
  while (copied && texts->count < count) {
    jbyteArray element = (*env)->GetObjectArrayElement(env, from, texts->count);
    copied = copy_text(env, element, &texts->text[texts->count], &texts->bytes[texts->count]);
    (*env)->DeleteLocalRef(env, element);
    if (copied) ++texts->count;
  }
  if (!copied) free_texts(texts);
  return copied;
}

void free_texts(Texts* texts) {
  for (int32_t i = 0; i < texts->count; ++i) free(texts->text[i]);
  free(texts->text);
  free(texts->bytes);
}

bool copy_ints(JNIEnv* env, jintArray from, int32_t** values, int32_t* count) {
  *count = (*env)->GetArrayLength(env, from);
  *values = take_memory(env, (size_t)*count * sizeof(int32_t));
  if (*values == NULL) return false;
  (*env)->GetIntArrayRegion(env, from, 0, *count, *values);
  return true;
}

jbyteArray new_bytes(JNIEnv* env, const char* data, size_t bytes) {
  jbyteArray made = (*env)->NewByteArray(env, (jsize)bytes);
  if (made != NULL) (*env)->SetByteArrayRegion(env, made, 0, (jsize)bytes, (const jbyte*)data);
  return made;
}

jintArray new_ints(JNIEnv* env, const int32_t* values, size_t count) {
  jintArray made = (*env)->NewIntArray(env, (jsize)count);
  if (made != NULL) (*env)->SetIntArrayRegion(env, made, 0, (jsize)count, values);
  return made;
}
