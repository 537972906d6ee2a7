/* Counts how often the core asks for memory and locks, and refuses some of it: the linker sends its calls
 * here (--wrap). */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/types.h>

#include "core_test.h"

static atomic_long count, locks;

long allocation_count(void) {
  return atomic_load(&count);
}

static atomic_long allowed = -1;

void allow_allocations(long more) {
  atomic_store(&allowed, more);
}

/* Whether a call that may fail has to. */
static int is_refused(void) {
  if (atomic_load(&allowed) < 0) return 0;
  if (atomic_load(&allowed) == 0) return 1;
  atomic_fetch_sub(&allowed, 1);
  return 0;
}

long lock_count(void) {
  return atomic_load(&locks);
}

int __real_pthread_mutex_lock(pthread_mutex_t* mutex);
int __wrap_pthread_mutex_lock(pthread_mutex_t* mutex);
int __wrap_pthread_mutex_lock(pthread_mutex_t* mutex) {
  atomic_fetch_add(&locks, 1);
  return __real_pthread_mutex_lock(mutex);
}

#define COUNTED(result, name, parameters, arguments) \
  result __real_##name parameters;                   \
  result __wrap_##name parameters;                   \
  result __wrap_##name parameters {                  \
    atomic_fetch_add(&count, 1);                     \
    return __real_##name arguments;                  \
  }

/* The same for functions whose callers expect to be refused. */
#define REFUSABLE(result, name, parameters, arguments, refusal) \
  result __real_##name parameters;                              \
  result __wrap_##name parameters;                              \
  result __wrap_##name parameters {                             \
    atomic_fetch_add(&count, 1);                                \
    return is_refused() ? (refusal) : __real_##name arguments;  \
  }

COUNTED(void*, malloc, (size_t bytes), (bytes))
COUNTED(void*, calloc, (size_t items, size_t bytes), (items, bytes))
REFUSABLE(void*, realloc, (void* data, size_t bytes), (data, bytes), NULL)
REFUSABLE(int, posix_memalign, (void** data, size_t alignment, size_t bytes), (data, alignment, bytes),
          ENOMEM)
REFUSABLE(void*, mmap, (void* at, size_t bytes, int protection, int flags, int file, off_t offset),
          (at, bytes, protection, flags, file, offset), (errno = ENOMEM, MAP_FAILED))
REFUSABLE(int, pthread_create,
          (pthread_t * thread, const pthread_attr_t* attributes, void* (*start)(void*), void* argument),
          (thread, attributes, start, argument), EAGAIN)

/* operator new and new[], plain, nothrow, and aligned nothrow. */
COUNTED(void*, _Znwm, (size_t bytes), (bytes))
COUNTED(void*, _Znam, (size_t bytes), (bytes))
REFUSABLE(void*, _ZnwmRKSt9nothrow_t, (size_t bytes, const void* tag), (bytes, tag), NULL)
REFUSABLE(void*, _ZnamRKSt9nothrow_t, (size_t bytes, const void* tag), (bytes, tag), NULL)
REFUSABLE(void*, _ZnwmSt11align_val_tRKSt9nothrow_t, (size_t bytes, size_t alignment, const void* tag),
          (bytes, alignment, tag), NULL)
REFUSABLE(void*, _ZnamSt11align_val_tRKSt9nothrow_t, (size_t bytes, size_t alignment, const void* tag),
          (bytes, alignment, tag), NULL)
