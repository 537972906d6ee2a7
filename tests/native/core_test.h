/* Shared by the files of the core's C tests. */
#ifndef FORERUN_CORE_TEST_H
#define FORERUN_CORE_TEST_H

#include <stdint.h>

#include "test_helpers.h"

/* core_bundle.c: writes a bundle around the library of tiny_program.c. */
void write_bundle(const char* folder, const char* library);
void test_bad_bundles(const char* folder);

/* Rewrites a sound bundle's manifest so that it asks for a feature of the processor. */
void need_feature(const char* folder, const char* feature);

/* core_permission.c: features that the system has to be asked for; leaves a bundle that asks for one. */
void test_permission(const char* folder);

/* core_walk.c: random calls against a plain recomputation. */
void test_walk(forerun_bundle* bundle, uint64_t seed, int32_t threads, int32_t calls);

/* core_generate.c: the generate loop over a tokens' model; so many answers that end anywhere. */
void test_generate(forerun_bundle* bundle, uint64_t seed, int32_t threads, int32_t cycles);

/* core_faults.c: memory, threads and files refused at each place in turn; the bundle is whole afterwards. */
void test_faults(const char* folder);

/* core_threads.c: cancelling from outside, shared teams and bundles. */
void test_threads(const char* folder);

/* core_features.c: rows with features, and sessions that share threads. */
void test_features(forerun_bundle* bundle);

/* core_cores.cpp: default threads on machines of several kinds. */
void test_cores(const char* folder);

/* core_allocations.c: calls of malloc, new, mmap and their like by the core so far. */
long allocation_count(void);

/* core_allocations.c: refuses all memory and threads after so many more calls of functions that may fail;
 * below 0: none. Plain operator new may not. */
void allow_allocations(long count);

/* core_text.cpp: tokenizer, decoder and chat prompts; leaves a bundle with a text. */
void test_text(const char* folder);

/* core_text.cpp: the part of it that uses threads. */
void test_shared_text(const char* folder);

/* core_bundle.c: puts a text.bin into a sound bundle. */
void add_text(const char* folder, const void* data, size_t bytes);

/* core_allocations.c: locks that the core took so far. */
long lock_count(void);

#endif
