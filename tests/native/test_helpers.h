/* What tests in C of the core's interface share, each a program of its own or not. */
#ifndef FORERUN_TEST_HELPERS_H
#define FORERUN_TEST_HELPERS_H

#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "forerun/forerun.h"

/* Ends the test with a place and the core's own words. */
#define CHECK(condition)                                                                                     \
  do {                                                                                                       \
    if (!(condition)) {                                                                                      \
      fprintf(stderr, "%s:%d: %s (last error: %s)\n", __FILE__, __LINE__, #condition, forerun_last_error()); \
      exit(1);                                                                                               \
    }                                                                                                        \
  } while (0)

/* splitmix64: the same numbers everywhere. */
static inline uint64_t next_random(uint64_t* state) {
  uint64_t value = (*state += 0x9E3779B97F4A7C15u);
  value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9u;
  value = (value ^ (value >> 27)) * 0x94D049BB133111EBu;
  return value ^ (value >> 31);
}

/* A number from 0 to limit - 1. */
static inline int32_t pick(uint64_t* state, int32_t limit) {
  return (int32_t)(next_random(state) % (uint64_t)limit);
}

/* How much a folder holds. */
static inline int entries_of(const char* path) {
  int count = 0;
  DIR* const folder = opendir(path);
  CHECK(folder != NULL);
  while (readdir(folder) != NULL) ++count;
  closedir(folder);
  return count - 2; /* itself and the folder above */
}

#endif
