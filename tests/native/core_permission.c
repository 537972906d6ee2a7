/* Tiles have to be asked for: what the core says to a system that has them, refuses them, or gives them. */
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>
#include <sys/syscall.h>

#include "core_test.h"

static bool has_tiles, gives_tiles;
static int asked;

/* The linker sends the core's calls here (--wrap): forerun::cpu_has, and syscall. */
bool __real__ZN7forerun7cpu_hasEPKc(const char* feature);
bool __wrap__ZN7forerun7cpu_hasEPKc(const char* feature);
bool __wrap__ZN7forerun7cpu_hasEPKc(const char* feature) {
  return strcmp(feature, "amx_tile") == 0 ? has_tiles : __real__ZN7forerun7cpu_hasEPKc(feature);
}

long __real_syscall(long number, ...);
long __wrap_syscall(long number, ...);
long __wrap_syscall(long number, ...) {
  long given[6];
  va_list arguments;
  va_start(arguments, number);
  for (int i = 0; i < 6; ++i) given[i] = va_arg(arguments, long);
  va_end(arguments);
#if defined(__x86_64__)
  if (number == SYS_arch_prctl) {
    CHECK(given[0] == 0x1023 && given[1] == 18);
    ++asked;
    errno = EOPNOTSUPP;
    return gives_tiles ? 0 : -1;
  }
#endif
  return __real_syscall(number, given[0], given[1], given[2], given[3], given[4], given[5]);
}

static int open_bundle(const char* folder, bool has, bool gives) {
  forerun_bundle* bundle = NULL;
  has_tiles = has;
  gives_tiles = gives;
  const int status = forerun_bundle_open(folder, NULL, &bundle);
  forerun_bundle_release(bundle);
  return status;
}

void test_permission(const char* folder) {
#if defined(__x86_64__)
  CHECK(open_bundle(folder, true, true) == FORERUN_OK && asked == 0); /* the bundle needs no tiles */
  need_feature(folder, "amx_tile");
  CHECK(open_bundle(folder, false, true) == FORERUN_CPU_FEATURE && asked == 0);
  CHECK(strstr(forerun_last_error(), "which this machine lacks"));
  CHECK(open_bundle(folder, true, false) == FORERUN_CPU_FEATURE && asked == 1);
  CHECK(strstr(forerun_last_error(), strerror(EOPNOTSUPP)));
  CHECK(strstr(forerun_last_error(), "--target x86-64-avx512-vnni"));
  CHECK(open_bundle(folder, true, true) == FORERUN_OK && asked == 2);
#else
  (void)folder;
#endif
}
