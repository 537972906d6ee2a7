/* Opening a bundle whose compiled programs are part of the app instead of libraries in the bundle.
 *
 *   #include <forerun/linked.h>
 *   #include "smollm2.h"   written by `forerun package`, with the table of the bundle's programs
 *
 *   forerun_bundle* bundle;
 *   forerun_bundle_open_linked("model", forerun_smollm2_programs, FORERUN_SMOLLM2_PROGRAMS, &bundle);
 */
#ifndef FORERUN_LINKED_H
#define FORERUN_LINKED_H

#include "forerun/forerun.h"
#include "forerun/program.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A program of the app, for one target. It belongs to the bundle that it was packaged from. */
typedef struct forerun_linked {
  const char* target; /* its name in the manifest */
  const forerun_program* (*program)(void);
  const char* draft; /* the draft network that it runs; NULL = the model */
} forerun_linked;

/* Opens the bundle in folder `path` (UTF-8) for the first of the app's programs [count], best first, that
 * this machine runs. No library is loaded. Everything is verified as forerun_bundle_open does. The table has
 * to outlive the bundle: drafts are opened from it when they are needed. */
FORERUN_API int forerun_bundle_open_linked(const char* path, const forerun_linked* linked, int32_t count,
                                           forerun_bundle** bundle);

/* The same, of the programs for target `target`: one for a device beside the CPU is taken only when it is
 * asked for, since those for the CPU come first. NULL = the first that runs. */
FORERUN_API int forerun_bundle_open_linked_for(const char* path, const forerun_linked* linked, int32_t count,
                                               const char* target, forerun_bundle** bundle);

#ifdef __cplusplus
}
#endif
#endif
