"""What an app's library may ask of Android: every symbol here is in its C library since version 10 (API level 29)."""

from __future__ import annotations

ANDROID_LIBRARIES = frozenset({"libc.so", "libm.so", "libdl.so"})

# Devices since Android 15 may have pages of 16 KiB; a library aligned to them loads on those of 4 KiB as well.
ANDROID_PAGE_BYTES = 16384

# Thread-local variables of its own, which the core has, need that version as well.
# fmt: off
ANDROID_SYMBOLS = frozenset((
    "__cxa_atexit", "__cxa_finalize", "__errno", "__sched_cpucount", "__stack_chk_fail", "abort",
    "acos", "aligned_alloc", "asin", "atexit", "calloc", "clock_gettime", "close", "cos",
    "dl_iterate_phdr", "dladdr", "dlclose", "dlerror", "dlopen", "dlsym", "exp", "exp2", "expf",
    "fclose", "fflush", "fgets", "fma", "fmaf", "fmax", "fmaxf", "fmin", "fminf", "fmod", "fopen",
    "fprintf", "fputc", "fputs", "fread", "free", "fscanf", "fstat", "fsync", "fwrite", "getauxval", "getenv", "log",
    "log1p", "log2", "logf", "madvise", "malloc", "memalign", "memchr", "memcmp", "memcpy", "memmove",
    "memset", "mkostemp", "mmap", "munmap", "open", "openat", "posix_memalign", "pow", "powf",
    "pthread_cond_broadcast", "pthread_cond_destroy", "pthread_cond_init", "pthread_cond_signal",
    "pthread_cond_wait", "pthread_create", "pthread_getspecific", "pthread_join", "pthread_key_create",
    "pthread_key_delete", "pthread_mutex_destroy", "pthread_mutex_init", "pthread_mutex_lock",
    "pthread_mutex_unlock", "pthread_once", "pthread_rwlock_rdlock", "pthread_rwlock_unlock",
    "pthread_rwlock_wrlock", "pthread_self", "pthread_setspecific", "pthread_sigmask", "read",
    "realloc", "rename", "sched_getaffinity", "sched_yield", "sigdelset", "sigfillset", "sin", "snprintf",
    "sqrt", "sscanf", "stderr", "strchr", "strcmp", "strcpy", "strcspn", "strerror", "strlen", "strncmp",
    "strncpy", "strtod", "strtof", "strtol", "strtoll", "strtoul", "strtoull", "syscall", "sysconf", "tanh",
    "unlink", "vfprintf", "vsnprintf", "wmemchr", "wmemcmp", "write",
))
# fmt: on

# Linked in: where musl's headers, and the C++ library that is built with them, look for errno.
ANDROID_SHIM = """\
int *__errno(void);
int *__errno_location(void);
__attribute__((visibility("hidden"))) int *__errno_location(void) { return __errno(); }
"""
