/* What the programs share that tests run beside Python: ending with the core's words, opening what they are
 * given. */
#ifndef FORERUN_TEST_PROGRAM_H
#define FORERUN_TEST_PROGRAM_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "forerun/forerun.h"
#ifdef LINKED
#include LINKED_HEADER
#include "forerun/linked.h"
#endif

/* Ends the program with the core's own words. */
#define CHECK(status)                                \
  do {                                               \
    if ((status) != FORERUN_OK) {                    \
      fprintf(stderr, "%s\n", forerun_last_error()); \
      exit(1);                                       \
    }                                                \
  } while (0)

/* Opens the bundle of the first argument for the target of the second, "-" being the best that runs here.
 * Built with LINKED, the table of a package's programs, it loads no library. */
static inline void open_bundle(char** arguments, forerun_bundle** bundle) {
  const char* target = strcmp(arguments[2], "-") ? arguments[2] : NULL;
#ifdef LINKED
  const int32_t count = (int32_t)(sizeof LINKED / sizeof *LINKED);
  CHECK(forerun_bundle_open_linked_for(arguments[1], LINKED, count, target, bundle));
#else
  CHECK(forerun_bundle_open(arguments[1], target, bundle));
#endif
}

#endif
