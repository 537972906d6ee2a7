/* A program for a device beside the CPU: kernels and tables of their launches instead of step functions.
 *
 * A module is a list of launches. A launch runs one kernel over some rows of a call; what its kernel is given
 * is said by kind, and the core has an array or a number of each kind.
 */
#ifndef FORERUN_DEVICE_H
#define FORERUN_DEVICE_H

#include <forerun/program.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What a kernel is given. Arrays first; `index` says which weight of the launch's module, or which slot. */
enum forerun_given_kind {
  FORERUN_GIVEN_WEIGHT,       /* one of the program's weights */
  FORERUN_GIVEN_SLOT,         /* memory for values that live within a module */
  FORERUN_GIVEN_HIDDEN,       /* float [M, D] */
  FORERUN_GIVEN_HEAD_HIDDEN,  /* float [M, D], the rows that the head is asked for */
  FORERUN_GIVEN_DRAWN_HIDDEN, /* float [1, D], the row that is drawn from */
  FORERUN_GIVEN_FEATURES,     /* float [M, F] */
  FORERUN_GIVEN_LOGITS,       /* float [M, V] */
  FORERUN_GIVEN_MAXIMA,       /* float [M, B] */
  FORERUN_GIVEN_DRAWS, /* uint32 [M, 3]: how rows are drawn from: the noise's key, low half first, and the
                        * float32 bits of 1 / temperature; 0: by the logits alone */
  FORERUN_GIVEN_ITEMS, /* int32 [item_count]: blocks of logits */
  FORERUN_GIVEN_BLOCK_LOGITS, /* float [item_count, FORERUN_HEAD_BLOCK] */
  FORERUN_GIVEN_ROW_TABLE,    /* int32 [M, 5]: token id, position, sequence, slot, gather_start */
  FORERUN_GIVEN_GATHER,       /* int32 [M, gather_stride] */
  FORERUN_GIVEN_KEYS,   /* of the layer. With w words in a head's row (two halves or one float in a word) */
  FORERUN_GIVEN_VALUES, /* word i of slot p: keys ((s*Kv + h)*C + p - p%16)*w + i*16 + p%16, values
                         * ((s*Kv + h)*C + p)*w + i */
  FORERUN_GIVEN_PARTS,  /* attention's: part_bytes for each block of positions */
  FORERUN_GIVEN_MOVES,  /* int32 [move_count, 5]: sequence, from slot, to slot, first layer, last layer + 1 */
  FORERUN_GIVEN_ARRAYS, /* how many kinds of arrays there are; numbers follow, int32 each */
  FORERUN_GIVEN_ROWS = FORERUN_GIVEN_ARRAYS, /* that this launch is for */
  FORERUN_GIVEN_FIRST_ROW,                   /* of the call, of these */
  FORERUN_GIVEN_CAPACITY,
  FORERUN_GIVEN_GATHER_STRIDE,
  FORERUN_GIVEN_BLOCK_COUNT, /* most blocks of positions that a row of the call sees something of */
  FORERUN_GIVEN_ITEM_COUNT,
  FORERUN_GIVEN_ROW_ITEMS, /* so many items are for the first of the head's rows, as many for the next … */
  FORERUN_GIVEN_MOVE_COUNT,
  FORERUN_GIVEN_LAYER,
  FORERUN_GIVEN_CONSTANT, /* `index` itself */
  FORERUN_GIVEN_KINDS
};

typedef struct forerun_given {
  uint8_t kind;
  uint8_t index;
} forerun_given;

/* A kernel and its grid: along x `columns` workgroups, or as many as the number of kind `columns_kind` says
 * where that is not 0, `each` times; along y one for each `rows` rows, begun ones included, or one where that
 * is 0. */
typedef struct forerun_device_kernel {
  const char* name;   /* of its function */
  const char* source; /* in the device's language, zero-terminated; NULL: it is in the program's binary */
  int32_t threads;    /* of a workgroup */
  int32_t columns, columns_kind, each, rows;
  int32_t argument_count;
  const uint8_t* arguments; /* for each argument of its function, which of the launch's `given` it is */
  uint32_t images; /* bit i: argument i is an image over memory, a 32-bit word a number; OpenCL alone */
} forerun_device_kernel;

typedef struct forerun_launch {
  const int16_t* kernels; /* [tile_rows + 1] by rows of a tile, the calls' rows cut into tiles of nearly equal
                           * size; tile_rows 0: [1], which takes any number */
  int32_t tile_rows;
  int32_t given_count;
  const forerun_given* given;
  /* Above 0: this launch and the next stages - 1 run one after the other for so many rows at a time. */
  int32_t chunk_rows, stages;
} forerun_launch;

typedef struct forerun_module {
  const forerun_launch* launches;
  int32_t launch_count;
} forerun_module;

/* A module of one layer, with the numbers of its weights; `module` NULL: the layer has no such sublayer. */
typedef struct forerun_layer_module {
  const forerun_module* module;
  const int32_t* weights;
} forerun_layer_module;

typedef struct forerun_weight {
  uint64_t offset; /* in the weights file */
  uint64_t bytes;
} forerun_weight;

typedef struct forerun_device_program {
  const char* device;    /* the interface: cuda, opencl or webgpu */
  const uint8_t* binary; /* kernels without sources of their own: a cubin; NULL otherwise */
  int32_t kernel_count;
  const forerun_device_kernel* kernels;
  int32_t weight_count;
  const forerun_weight* weights;
  int32_t slot_count;
  const uint64_t* slot_bytes;
  uint64_t part_bytes;        /* of attention's parts for a block of positions, for chunk_rows rows */
  int32_t block_positions;    /* positions in such a block */
  forerun_layer_module embed; /* without a module where rows are given as hidden states */
  const forerun_layer_module* attention;    /* [layers] */
  const forerun_layer_module* feed_forward; /* [layers] */
  forerun_layer_module head, head_maxima, head_blocks;
  forerun_layer_module head_picks; /* as head_blocks, for several rows: items [M, row_items] */
  const forerun_module* pick;      /* items [M]: of each row the first block with the largest maximum */
  const forerun_module* list;      /* items [M, row_items], ascending: those that `draws` will look at first;
                                    * leaves other numbers in `logits` */
  const forerun_module* const* moves; /* [layers], brings rows of a layer's cache to other slots */
} forerun_device_program;

#ifdef __cplusplus
}
#endif
#endif
