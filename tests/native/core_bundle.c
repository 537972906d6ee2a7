/* Bundles for the C tests: a sound one, and thousands of damaged ones that must be refused without a crash.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "core_test.h"

enum { WEIGHTS = 37 * 12 + 3 * (2 * 12 * 12 + 4 * 3 * 12 + 2 * 10 * 12) + 37 * 12, MAX_TEXT = 4096 };

#if defined(__x86_64__)
static const char ARCHITECTURE[] = "x86_64";
#else
static const char ARCHITECTURE[] = "aarch64";
#endif

static void join(char* path, const char* folder, const char* name) {
  CHECK(snprintf(path, MAX_TEXT, "%s/%s", folder, name) < MAX_TEXT);
}

static void write_file(const char* folder, const char* name, const void* data, size_t bytes) {
  char path[MAX_TEXT];
  join(path, folder, name);
  FILE* file = fopen(path, "wb");
  CHECK(file != NULL);
  CHECK(fwrite(data, 1, bytes, file) == bytes);
  CHECK(fclose(file) == 0);
}

static uint8_t* read_file(const char* path, size_t* bytes) {
  FILE* file = fopen(path, "rb");
  CHECK(file != NULL);
  CHECK(fseek(file, 0, SEEK_END) == 0);
  *bytes = (size_t)ftell(file);
  rewind(file);
  uint8_t* data = malloc(*bytes + 1);
  CHECK(data != NULL);
  CHECK(fread(data, 1, *bytes, file) == *bytes);
  fclose(file);
  return data;
}

static void make_folder(const char* path) {
  CHECK(mkdir(path, 0777) == 0 || errno == EEXIST);
}

/* Writes manifest.json with a header that vouches for `body`. */
static void vouch(const char* folder, const char* body, size_t bytes) {
  char text[2 * MAX_TEXT];
  const int header =
      snprintf(text, sizeof text,
               "{\"format\": \"forerun-bundle\", \"version\": 3, \"xxh64\": \"%016llx\", \"manifest\":\n",
               (unsigned long long)forerun_hash64(body, bytes, 0));
  memcpy(text + header, body, bytes);
  write_file(folder, "manifest.json", text, (size_t)header + bytes);
}

/* Where vouch() puts the end of the header, for those who damage what follows. */
static size_t body_of(const uint8_t* text, size_t bytes) {
  const uint8_t* end = memchr(text, '\n', bytes);
  CHECK(end != NULL);
  return (size_t)(end - text) + 1;
}

void write_bundle(const char* folder, const char* library) {
  char path[MAX_TEXT], body[MAX_TEXT];
  make_folder(folder);
  join(path, folder, "lib");
  make_folder(path);

  float weights[WEIGHTS];
  uint64_t state = 1;
  for (int i = 0; i < WEIGHTS; ++i) weights[i] = (float)(pick(&state, 2001) - 1000) * 0.0006f;
  write_file(folder, "weights.bin", weights, sizeof weights);

  size_t code_bytes;
  uint8_t* code = read_file(library, &code_bytes);
  /* Not written over: a library of the same name may be loaded. */
  join(path, folder, "lib/tiny.so");
  remove(path);
  write_file(folder, "lib/tiny.so", code, code_bytes);

  const int length = snprintf(
      body, sizeof body,
      "{\"config\": {\"layers\": 3, \"hidden_size\": 12, \"vocabulary_size\": 37, \"context_length\": 200},\n"
      "\"targets\": {\"tiny\": {\"library\": \"lib/tiny.so\", \"symbol\": \"forerun_program_model\",\n"
      "\"arch\": \"%s\", \"features\": []}}, \"files\": {\n"
      "\"weights.bin\": {\"bytes\": %zu, \"xxh64\": \"%016llx\"},\n"
      "\"lib/tiny.so\": {\"bytes\": %zu, \"xxh64\": \"%016llx\"}}, \"text\": \"\\u00e9 \\ud83d\\ude00 "
      "\\n\"}}\n",
      ARCHITECTURE, sizeof weights, (unsigned long long)forerun_hash64(weights, sizeof weights, 0),
      code_bytes, (unsigned long long)forerun_hash64(code, code_bytes, 0));
  CHECK(length < (int)sizeof body);
  vouch(folder, body, (size_t)length);
  free(code);
}

void need_feature(const char* folder, const char* feature) {
  char path[MAX_TEXT], body[MAX_TEXT];
  size_t bytes;
  join(path, folder, "manifest.json");
  uint8_t* text = read_file(path, &bytes);
  text[bytes] = 0;
  char* const start = (char*)text + body_of(text, bytes);
  char* const list = strstr(start, "\"features\": []");
  CHECK(list != NULL);
  const char* const rest = strchr(list, ']');
  const int length =
      snprintf(body, sizeof body, "%.*s\"features\": [\"%s\"%s", (int)(list - start), start, feature, rest);
  CHECK(length < (int)sizeof body);
  vouch(folder, body, (size_t)length);
  free(text);
}

void add_text(const char* folder, const void* data, size_t bytes) {
  char path[MAX_TEXT], body[MAX_TEXT];
  size_t length;
  write_file(folder, "text.bin", data, bytes);
  join(path, folder, "manifest.json");
  uint8_t* text = read_file(path, &length);
  text[length] = 0;
  const char* const start = (char*)text + body_of(text, length);
  const char* const files = strstr(start, "\"weights.bin\": {");
  CHECK(files != NULL);
  const int written =
      snprintf(body, sizeof body, "%.*s\"text.bin\": {\"bytes\": %zu, \"xxh64\": \"%016llx\"},\n%s",
               (int)(files - start), start, bytes, (unsigned long long)forerun_hash64(data, bytes, 0), files);
  CHECK(written < (int)sizeof body);
  vouch(folder, body, (size_t)written);
  free(text);
}

static void try_to_open(const char* folder) {
  forerun_bundle* bundle = NULL;
  const int status = forerun_bundle_open(folder, NULL, &bundle);
  CHECK((status == FORERUN_OK) == (bundle != NULL));
  CHECK(status == FORERUN_OK || forerun_last_error()[0] != '\0');
  forerun_bundle_release(bundle);
}

void test_bad_bundles(const char* folder) {
  char path[MAX_TEXT];
  size_t bytes;
  forerun_bundle* bundle = NULL;
  join(path, folder, "manifest.json");
  uint8_t* sound = read_file(path, &bytes);
  uint8_t* damaged = malloc(bytes);
  CHECK(damaged != NULL);
  for (size_t length = 0; length < bytes; length += 3) {
    write_file(folder, "manifest.json", sound, length);
    CHECK(forerun_bundle_open(folder, NULL, &bundle) != FORERUN_OK);
  }
  /* Vouched for, so that the damage reaches the reader of JSON and what stands behind it. */
  const size_t body = body_of(sound, bytes);
  uint64_t state = 7;
  for (int i = 0; i < 1500; ++i) {
    memcpy(damaged, sound, bytes);
    for (int32_t k = pick(&state, 3); k >= 0; --k) {
      const size_t at = body + (size_t)pick(&state, (int32_t)(bytes - body));
      damaged[at] =
          pick(&state, 3) ? (uint8_t)"{}[]\",:\\0123456789-eu"[pick(&state, 21)] : (uint8_t)pick(&state, 256);
    }
    vouch(folder, (const char*)damaged + body,
          bytes - body - (size_t)(pick(&state, 4) ? 0 : pick(&state, 40)));
    try_to_open(folder);
  }
  write_file(folder, "manifest.json", sound, bytes);
  CHECK(forerun_bundle_open(folder, "other", &bundle) == FORERUN_UNKNOWN_TARGET);
  CHECK(forerun_bundle_open("/nowhere", NULL, &bundle) == FORERUN_FILE);
  free(damaged);
  free(sound);
}
