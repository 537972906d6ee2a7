/* Everything that the system can refuse, refused at each place in turn: memory, threads, and every call that
 * touches a file. What was asked for fails with a reason, holds nothing (the sanitizer counts), and works
 * when it is asked for again. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core_test.h"

enum { MOST_PLACES = 2000, MOST_PATH = 4096 };

/* The call on a file that fails next, -1: none; and with what. */
static long fails_in = -1;
static int fails_with = EIO;

static int is_at_fault(void) {
  if (fails_in < 0 || fails_in-- > 0) return 0;
  errno = fails_with;
  return 1;
}

/* The linker sends the core's calls here (--wrap). */
#define FAULTY(result, name, parameters, arguments)      \
  result __real_##name parameters;                       \
  result __wrap_##name parameters;                       \
  result __wrap_##name parameters {                      \
    return is_at_fault() ? -1 : __real_##name arguments; \
  }

FAULTY(int, fstat, (int file, struct stat* facts), (file, facts))
FAULTY(ssize_t, read, (int file, void* data, size_t bytes), (file, data, bytes))
FAULTY(ssize_t, write, (int file, const void* data, size_t bytes), (file, data, bytes))
FAULTY(int, fsync, (int file), (file))
FAULTY(int, rename, (const char* from, const char* to), (from, to))
FAULTY(int, mkostemp, (char* name, int flags), (name, flags))
FAULTY(int, open, (const char* path, int flags, ...), (path, flags))
FAULTY(int, openat, (int folder, const char* path, int flags, ...), (folder, path, flags))

typedef struct place {
  const char* folder;
  char saved[MOST_PATH];
} place;

static int use_session(const place* place, forerun_session* session) {
  const forerun_generation wanted = {"self:layers=2", "cape", NULL, {0, 0, 1, 0}, 6, NULL, 0};
  const int32_t prompt[3] = {1, 2, 3};
  int32_t sequence, restored;
  forerun_finish finish;
  forerun_generator* generator = NULL;
  CHECK(forerun_sequence_create(session, &sequence) == FORERUN_OK);
  int status = forerun_generator_create(session, &generator);
  if (status == FORERUN_OK) status = forerun_generate_start(generator, sequence, prompt, 3, &wanted);
  if (status == FORERUN_OK) status = forerun_generate(generator, sequence, NULL, NULL, &finish);
  if (status == FORERUN_OK) status = forerun_profile_open(session);
  if (status == FORERUN_OK) status = forerun_sequence_save(session, sequence, place->saved);
  if (status == FORERUN_OK) status = forerun_sequence_restore(session, place->saved, &restored);
  forerun_generator_release(generator);
  return status;
}

/* From a folder to an answer that is saved and restored. */
static int use_all(const place* place) {
  const forerun_session_options options = {2, 40, 2, NULL};
  forerun_bundle* bundle = NULL;
  forerun_session* session = NULL;
  int status = forerun_bundle_open(place->folder, NULL, &bundle);
  if (status == FORERUN_OK) status = forerun_session_create(bundle, &options, &session);
  CHECK((status == FORERUN_OK) == (session != NULL));
  if (status == FORERUN_OK) status = use_session(place, session);
  CHECK(status == FORERUN_OK || forerun_last_error()[0] != '\0');
  forerun_session_release(session);
  forerun_bundle_release(bundle);
  return status;
}

static void test_refused_memory(const place* place) {
  int refused = 0, status = FORERUN_OUT_OF_MEMORY;
  for (long more = 0; status != FORERUN_OK; ++more) {
    CHECK(more < MOST_PLACES);
    allow_allocations(more);
    status = use_all(place);
    allow_allocations(-1);
    CHECK(status == FORERUN_OK || status == FORERUN_OUT_OF_MEMORY || status == FORERUN_FILE);
    refused += status == FORERUN_OUT_OF_MEMORY;
  }
  CHECK(refused > 50);
}

static void test_faulty_files(const place* place, int with) {
  struct stat facts;
  fails_with = with;
  CHECK(use_all(place) == FORERUN_OK);
  const int entries = entries_of(place->folder), files = entries_of("/proc/self/fd");
  int failed = 0, status = FORERUN_FILE;
  for (long before = 0; status != FORERUN_OK; ++before) {
    CHECK(before < MOST_PLACES);
    fails_in = before;
    status = use_all(place);
    fails_in = -1;
    CHECK(status == FORERUN_OK || status == FORERUN_FILE);
    failed += status == FORERUN_FILE;
    /* Nothing half written, nothing left open, and the file of the last time is whole. */
    CHECK(entries_of(place->folder) == entries && entries_of("/proc/self/fd") == files);
    CHECK(stat(place->saved, &facts) == 0 && facts.st_size > 0);
  }
  CHECK(failed > 15);
}

/* Each file of the bundle cut off at many lengths. */
static void test_cut_files(const char* folder) {
  const char* const names[] = {"weights.bin", "lib/tiny.so", "manifest.json"};
  char path[MOST_PATH];
  for (size_t i = 0; i < sizeof names / sizeof *names; ++i) {
    CHECK(snprintf(path, sizeof path, "%s/%s", folder, names[i]) < MOST_PATH);
    FILE* file = fopen(path, "rb");
    CHECK(file != NULL && fseek(file, 0, SEEK_END) == 0);
    const long bytes = ftell(file);
    char* const data = malloc((size_t)bytes);
    rewind(file);
    CHECK(data != NULL && fread(data, 1, (size_t)bytes, file) == (size_t)bytes);
    fclose(file);
    for (long length = 0; length < bytes; length += 1 + bytes / 40) {
      forerun_bundle* bundle;
      CHECK(truncate(path, length) == 0);
      const int status = forerun_bundle_open(folder, NULL, &bundle);
      CHECK(status == FORERUN_SIZE || (i == 2 && (status == FORERUN_MANIFEST || status == FORERUN_HASH)));
      file = fopen(path, "wb");
      CHECK(file != NULL && fwrite(data, 1, (size_t)bytes, file) == (size_t)bytes && fclose(file) == 0);
    }
    free(data);
  }
}

void test_faults(const char* folder) {
  static place used;
  used.folder = folder;
  CHECK(snprintf(used.saved, sizeof used.saved, "%s/saved", folder) < MOST_PATH);
  test_refused_memory(&used);
  test_faulty_files(&used, EIO);
  test_faulty_files(&used, ENOSPC);
  test_cut_files(folder);
}
