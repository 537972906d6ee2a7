/* What a program reads, where the time of a call goes, and how fast the machine reads. Included by forerun.h.
 */
#ifndef FORERUN_MEASURE_H
#define FORERUN_MEASURE_H

#include "forerun/forerun.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One kernel of the program, and what it reads in one layer beside activations. The texts live as long as the
 * bundle. */
typedef struct forerun_kernel_facts {
  const char* module;
  const char* name;
  uint64_t call_bytes;     /* weights read once a call, however many rows */
  uint64_t row_bytes;      /* weights looked up for each row */
  uint64_t position_bytes; /* key/value cache read for each position attended to, */
  int32_t window;          /* of which each row sees so many; 0: all */
} forerun_kernel_facts;

FORERUN_API int forerun_bundle_kernel_count(const forerun_bundle* bundle, int32_t* count);

FORERUN_API int forerun_bundle_kernel(const forerun_bundle* bundle, int32_t kernel,
                                      forerun_kernel_facts* facts);

/* From now on every forward of the session is timed kernel by kernel, which costs two readings of the clock a
 * kernel. Memory is reserved here. Close ends that; a session without an open profile pays nothing. */
FORERUN_API int forerun_profile_open(forerun_session* session);
FORERUN_API int forerun_profile_close(forerun_session* session);

/* Nanoseconds of the last forward, for each thread: running a kernel and waiting behind it [threads, L,
 * kernels] (layer 0 for embed and head), and everything else, the core's own work [threads]. A thread's times
 * add up to the forward's. */
FORERUN_API int forerun_profile_read(forerun_session* session, uint64_t* ran_ns, uint64_t* waited_ns,
                                     uint64_t* core_ns);

typedef enum forerun_memory {
  FORERUN_MEMORY_OWN = 0, /* freshly written, in large pages where the system has them: the machine's limit */
  FORERUN_MEMORY_WEIGHTS = 1 /* the bundle's weights as they are mapped */
} forerun_memory;

/* Copies `bytes` bytes of the session's device to other memory of it `passes` times, one after the other, and
 * writes the nanoseconds of each, the time of waiting for it included. Fails for a session on the CPU. */
FORERUN_API int forerun_measure_device_copy(forerun_session* session, uint64_t bytes, int32_t passes,
                                            uint64_t* pass_ns);

/* Kernels of a program for a device, tried by themselves: by forerun tune, which has candidates beside each
 * other in one program. They share one list of parameters. */
struct forerun_device_program;
typedef struct forerun_trial forerun_trial;

/* What all kernels are given for one of their parameters: memory of so many bytes, a multiple of 4, in so
 * many copies that calls take in turns; 0 copies: the number 0. */
typedef struct forerun_trial_array {
  uint64_t bytes;
  int32_t copies;
} forerun_trial_array;

/* Finds the device, builds the program's kernels and reserves memory. Of the program only its device, binary
 * and kernels count; argument number `count` of a kernel is the rows of the call. The program has to outlive
 * the trial. */
FORERUN_API int forerun_trial_create(const struct forerun_device_program* program,
                                     const forerun_trial_array* arrays, int32_t count, forerun_trial** trial);
FORERUN_API void forerun_trial_release(forerun_trial* trial);

/* Runs a kernel `calls` times for so many rows, then as often again, and writes the nanoseconds of the
 * latter, the wait for the last of them included. One thread at a time is inside a trial. */
FORERUN_API int forerun_trial_run(forerun_trial* trial, int32_t kernel, int32_t rows, int32_t calls,
                                  uint64_t* ns);

/* Reads `bytes` bytes `passes` times with the session's threads, each a part of its own, as fast as it can.
 * Writes the nanoseconds of each pass. */
FORERUN_API int forerun_measure_read(forerun_session* session, int32_t memory, uint64_t bytes, int32_t passes,
                                     uint64_t* pass_ns);

#ifdef __cplusplus
}
#endif

#endif
