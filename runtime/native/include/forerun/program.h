/* The interface between a compiled program (the generated program.c of a bundle) and the runtime core.
 *
 * A program is a set of step functions, one per kind of module. Every thread of the core's team calls each
 * step function with its own `tid`; the function calls kernels that share the work out by (tid, threads) and
 * puts a barrier after each. A step function returns with all threads in step and its result visible to all.
 *
 * Legend: rows = token positions in this call (M), D hidden size, V vocabulary, C capacity in positions,
 * S sequences of the session, Kv key/value heads, d head size, F feature size.
 */
#ifndef FORERUN_PROGRAM_H
#define FORERUN_PROGRAM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Raised whenever a struct below changes; a library built for another number is refused. */
#define FORERUN_PROGRAM_ABI 9

/* Keys are stored in blocks of this many positions, so that one vector holds one dimension of a block. */
#define FORERUN_KEY_BLOCK 16

/* Logits in a block: the head gives the largest of each, or computes those of listed ones. */
#define FORERUN_HEAD_BLOCK 16

/* What a thread tells a profile: it has done its share of a kernel; the threads have met after it. */
#define FORERUN_MARK_RAN 0
#define FORERUN_MARK_MET 1

/* What one call of a step function works on. All arrays are owned by the core and 64-byte aligned. */
typedef struct forerun_call {
  int32_t rows;    /* rows active at this step, 1 … max_rows */
  int32_t threads; /* threads in the team */

  const int32_t* token_ids; /* [rows], embed only */
  const float* features;    /* [rows, F], embed only; NULL where F is 0 */
  const int32_t* positions; /* [rows], absolute position of each row in its sequence */
  float* hidden;            /* [rows, D], read and written in place; embed only writes it */
  float* logits;            /* [rows, V], written by head only */

  /* For head_maxima and head_blocks; B = ceil(V / FORERUN_HEAD_BLOCK). */
  float* maxima;        /* [rows, B], the largest logit of each block */
  const int32_t* items; /* [item_count], blocks of logits to compute, each 0 … B-1 */
  int32_t item_count;
  float* block_logits; /* [item_count, FORERUN_HEAD_BLOCK]; lanes past V are undefined */

  /* KV cache. Element (sequence s, kv head h, slot p, dimension i) of layer l lies at
   *   keys[l][((s*Kv + h)*(C/16) + p/16)*d*16 + i*16 + p%16]
   *   values[l][((s*Kv + h)*C + p)*d + i]                        */
  void* const* keys;   /* [layers] */
  void* const* values; /* [layers] */
  int64_t capacity;    /* C, a multiple of FORERUN_KEY_BLOCK */

  const int32_t* sequences; /* [rows], s of each row */
  const int32_t* slots;     /* [rows], slot at which the row writes its key and value */
  /* A row attends to positions 0 … position (itself included). Positions below gather_start lie in place
   * (slot = position); position p at or above it lies at slot gather[row*gather_stride + p - gather_start].
   * A row with nothing to gather has gather_start = position + 1. */
  const int32_t* gather_start; /* [rows] */
  const int32_t* gather;       /* [rows, gather_stride] */
  int64_t gather_stride;

  const uint8_t* weights; /* start of the mapped weights file */
  uint8_t* arena;         /* activations, arena_bytes */
  uint8_t* scratch;       /* [threads][scratch_stride] bytes, private to each thread */
  int64_t scratch_stride; /* ≥ scratch_bytes + scratch_bytes_per_position * C, a multiple of 64 */

  void* const* buffers; /* inputs, then outputs, of a graph program; NULL otherwise */

  void (*barrier)(void* team, int32_t tid);
  void* team;

  /* NULL except while a profile is taken: every thread calls it after its share of kernel number `kernel`
   * (FORERUN_MARK_RAN) and, where a barrier follows, after that (FORERUN_MARK_MET). `layer` is 0 in embed and
   * head. */
  void (*mark)(void* profile, int32_t tid, int32_t layer, int32_t kernel, int32_t event);
  void* profile;
} forerun_call;

/* Of a layer with a window a row sees the last `window` positions, its own included, and the cache is a ring:
 * C above is the smaller of the session's capacity and `ring`, and slot p stands for p mod C. A ring has room
 * for the window of the oldest row of a call beside the newest staged row: window + 2 × the rows that may be
 * staged, or more. */
typedef struct forerun_layer {
  int32_t kv_heads;
  int32_t head_dim;
  int32_t window; /* 0: rows see all positions, and there is no ring */
  int32_t ring;   /* slots, a multiple of FORERUN_KEY_BLOCK */
} forerun_layer;

/* A kernel as profiles count it, and what it reads in one layer beside activations. */
typedef struct forerun_kernel {
  const char* module; /* the function of program.c that runs it */
  const char* name;
  uint64_t call_bytes;     /* weights read once a call, however many rows; head_blocks: at most */
  uint64_t row_bytes;      /* weights looked up for each row */
  uint64_t position_bytes; /* KV cache read for each position attended to, */
  int32_t window;          /* of which each row sees so many; 0: all */
} forerun_kernel;

/* A decoder: embed → (attention_l → feed_forward_l) × layers → head. `embed` is NULL where rows are given as
 * hidden states. A sublayer that the layers of a network lack is a step function that does nothing. */
typedef struct forerun_program {
  uint32_t abi; /* FORERUN_PROGRAM_ABI */
  int32_t layers;
  int32_t hidden_size;          /* D */
  int32_t vocabulary_size;      /* V */
  int32_t feature_size;         /* F, numbers that come with each token; 0 = none */
  int32_t context_length;       /* positions the rotary table holds: no row may lie beyond */
  int32_t max_rows;             /* rows one call may carry */
  int32_t max_gather;           /* positions one row may gather */
  int32_t kv_element_bytes;     /* 2 = IEEE half, 4 = float */
  const forerun_layer* layer;   /* [layers] */
  int32_t kernels;              /* kernels of all modules; 0: the program marks none */
  const forerun_kernel* kernel; /* [kernels] */
  uint64_t weights_bytes;       /* the weights file must have exactly this size */
  uint64_t arena_bytes;
  uint64_t scratch_bytes;
  uint64_t scratch_bytes_per_position;
  void (*embed)(const forerun_call* call, int32_t tid);
  void (*attention)(const forerun_call* call, int32_t layer, int32_t tid);
  void (*feed_forward)(const forerun_call* call, int32_t layer, int32_t tid);
  void (*head)(const forerun_call* call, int32_t tid);
  /* The head without its logits: only the largest of each block, infinity where one of them is NaN. */
  void (*head_maxima)(const forerun_call* call, int32_t tid);
  /* The logits of the blocks in `items` for one row (rows = 1), the same bits as head's. */
  void (*head_blocks)(const forerun_call* call, int32_t tid);
  /* The same for a device beside the CPU (see device.h), in place of all functions above; NULL otherwise. */
  const struct forerun_device_program* device;
} forerun_program;

/* Any other network: inputs and outputs in `buffers`, row-major, shapes fixed when compiled or led by `rows`.
 */
typedef struct forerun_graph {
  uint32_t abi;
  uint64_t weights_bytes;
  uint64_t arena_bytes;
  uint64_t scratch_bytes;
  void (*run)(const forerun_call* call, int32_t tid);
} forerun_graph;

#ifdef __cplusplus
}
#endif
#endif
