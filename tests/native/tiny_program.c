/* A tiny decoder written by hand to the rules of program.h: what the core is tested with.
 *
 * Everything is plain C in a fixed order per row, so that results must be bit-identical however rows are
 * grouped. Work is dealt out item by item over the threads: a missing barrier or a wrong tid shows at once.
 * Weights are floats, in the order of the offsets below. tests/native/tiny_model.py is its definition in
 * numpy.
 *
 * -DTINY_FEATURES=n lets n features come with each token, -DTINY_NO_EMBED takes hidden states only.
 * -DTINY_ROW_US=n makes every row take that many microseconds more.
 * -DTINY_HALF stores keys and values as halves. -DTINY_ABI, -DTINY_ROWS, -DTINY_CONTEXT, -DTINY_VOCABULARY,
 * -DTINY_LAYERS, -DTINY_KERNELS and -DTINY_NULL make programs of other sizes, or such that the core must
 * refuse.
 */
#define _POSIX_C_SOURCE 199309L /* nanosleep */

#include <math.h>
#include <string.h>
#include <time.h>

#include "forerun/program.h"

#ifndef TINY_ABI
#define TINY_ABI FORERUN_PROGRAM_ABI
#endif
#ifndef TINY_VOCABULARY
#define TINY_VOCABULARY 37
#endif
#ifndef TINY_ROWS
#define TINY_ROWS 12
#endif
#ifndef TINY_CONTEXT
#define TINY_CONTEXT 200
#endif
#ifndef TINY_NULL
#define TINY_NULL 0
#endif
#ifndef TINY_KERNELS
#define TINY_KERNELS 9
#endif
#ifndef TINY_ROW_US
#define TINY_ROW_US 0
#endif
#ifndef TINY_FEATURES
#define TINY_FEATURES 0
#endif
#ifdef TINY_NO_EMBED
#define EMBED_STEP NULL
#else
#define EMBED_STEP embed
#endif
#ifndef TINY_LAYERS
#define TINY_LAYERS 3
#endif

enum {
  HIDDEN = 12,
  HEADS = 4,
  HEAD_DIM = 3,
  FEED_FORWARD = 10,
  VOCABULARY = TINY_VOCABULARY,
  MAX_GATHER = 12
};

/* A row's width is no multiple of 64 bytes, and layer 1 has fewer heads: nothing may assume otherwise. */
static const forerun_layer LAYERS[] = {{2, HEAD_DIM, 0, 0}, {1, HEAD_DIM, 0, 0}, {2, HEAD_DIM, 0, 0}};

/* Offsets into the weights, in floats. A layer: query [D, D], key [2·d, D], value [2·d, D], output [D, D],
 * up [F, D], down [D, F]; rows of `key` and `value` beyond the layer's heads are not used. */
enum {
  EMBED = 0,
  LAYER = EMBED + VOCABULARY * HIDDEN,
  QUERY = 0,
  KEY = QUERY + HIDDEN * HIDDEN,
  VALUE = KEY + 2 * HEAD_DIM * HIDDEN,
  OUTPUT = VALUE + 2 * HEAD_DIM * HIDDEN,
  UP = OUTPUT + HIDDEN * HIDDEN,
  DOWN = UP + FEED_FORWARD * HIDDEN,
  LAYER_SIZE = DOWN + HIDDEN * FEED_FORWARD,
  HEAD = LAYER + 3 * LAYER_SIZE,
  WEIGHTS = HEAD + VOCABULARY * HIDDEN
};

#ifdef TINY_HALF
typedef uint16_t element;

static element store(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  if (magnitude < 0x38800000u) return (element)sign; /* too small for a normal half */
  return (element)(sign | ((magnitude + 0x1000u - 0x38000000u) >> 13));
}

static float load(element half) {
  const uint32_t magnitude = half & 0x7FFFu;
  const uint32_t bits =
      ((uint32_t)(half & 0x8000u) << 16) | (magnitude ? (magnitude << 13) + 0x38000000u : 0);
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}
#else
typedef float element;
static element store(float value) {
  return value;
}
static float load(element value) {
  return value;
}
#endif

static const float* weights_of(const forerun_call* call, int32_t layer) {
  return (const float*)call->weights + LAYER + layer * LAYER_SIZE;
}

static float dot(const float* left, const float* right, int size) {
  float sum = 0;
  for (int i = 0; i < size; ++i) sum += left[i] * right[i];
  return sum;
}

static void normalize(const float* hidden, float* out) {
  const float scale = 1 / sqrtf(dot(hidden, hidden, HIDDEN) / HIDDEN + 1e-5f);
  for (int i = 0; i < HIDDEN; ++i) out[i] = hidden[i] * scale;
}

static int64_t key_at(const forerun_call* call, int32_t row, int32_t kv_heads, int32_t head, int32_t slot,
                      int i) {
  const int64_t block =
      ((int64_t)call->sequences[row] * kv_heads + head) * (call->capacity / FORERUN_KEY_BLOCK) +
      slot / FORERUN_KEY_BLOCK;
  return (block * HEAD_DIM + i) * FORERUN_KEY_BLOCK + slot % FORERUN_KEY_BLOCK;
}

static int64_t value_at(const forerun_call* call, int32_t row, int32_t kv_heads, int32_t head, int32_t slot) {
  return (((int64_t)call->sequences[row] * kv_heads + head) * call->capacity + slot) * HEAD_DIM;
}

static int32_t slot_of(const forerun_call* call, int32_t row, int32_t position) {
  const int32_t first = call->gather_start[row];
  return position < first ? position : call->gather[row * call->gather_stride + position - first];
}

/* Kernels as a profile counts them. */
enum { EMBED_ROWS, PROJECT, ATTEND, OUT, UP_ROWS, DOWN_ROWS, LOGITS, MAXIMA, BLOCKS, KERNELS };

static const forerun_kernel KERNEL_TABLE[KERNELS] = {
    {"embed", "embed_rows", 0, 4 * HIDDEN, 0, 0},
    {"attention", "project", 4 * (OUTPUT - QUERY), 0, 0, 0},
    {"attention", "attend", 0, 0, 2 * 2 * HEAD_DIM * sizeof(element), 0},
    {"attention", "out", 4 * HIDDEN * HIDDEN, 0, 0, 0},
    {"feed_forward", "up", 4 * FEED_FORWARD * HIDDEN, 0, 0, 0},
    {"feed_forward", "down", 4 * FEED_FORWARD * HIDDEN, 0, 0, 0},
    {"head", "logits", 4 * VOCABULARY * HIDDEN, 0, 0, 0},
    {"head_maxima", "maxima", 4 * VOCABULARY * HIDDEN, 0, 0, 0},
    {"head_blocks", "blocks", 4 * VOCABULARY * HIDDEN, 0, 0, 0},
};

static void finish(const forerun_call* call, int32_t layer, int32_t kernel, int32_t tid) {
  if (call->mark) call->mark(call->profile, tid, layer, kernel, FORERUN_MARK_RAN);
  call->barrier(call->team, tid);
  if (call->mark) call->mark(call->profile, tid, layer, kernel, FORERUN_MARK_MET);
}

static float feature_of(const forerun_call* call, int32_t row, int i) {
  return 0.7f * call->features[row * TINY_FEATURES + i % (TINY_FEATURES > 0 ? TINY_FEATURES : 1)];
}

__attribute__((unused)) static void embed(const forerun_call* call, int32_t tid) {
  for (int32_t row = tid; row < call->rows; row += call->threads) {
    const float* from = (const float*)call->weights + EMBED + call->token_ids[row] * HIDDEN;
    for (int i = 0; i < HIDDEN; ++i) {
      const float angle = 0.1f * (float)(call->positions[row] % 50) * (float)(i + 1);
      call->hidden[row * HIDDEN + i] = from[i] + 0.5f * sinf(angle);
      if (TINY_FEATURES > 0) call->hidden[row * HIDDEN + i] += feature_of(call, row, i);
    }
  }
  if (TINY_ROW_US > 0 && tid == 0) nanosleep(&(struct timespec){0, TINY_ROW_US * 1000L * call->rows}, NULL);
  finish(call, 0, EMBED_ROWS, tid);
}

/* Keys and values of a row, and its query into the arena. */
static void project(const forerun_call* call, int32_t layer, int32_t row) {
  const float* weights = weights_of(call, layer);
  const int32_t kv_heads = LAYERS[layer].kv_heads;
  element *keys = call->keys[layer], *values = call->values[layer];
  float* query = (float*)call->arena + row * HIDDEN;
  float normal[HIDDEN];
  normalize(call->hidden + row * HIDDEN, normal);
  for (int i = 0; i < HIDDEN; ++i) query[i] = dot(weights + QUERY + i * HIDDEN, normal, HIDDEN);
  for (int32_t head = 0; head < kv_heads; ++head) {
    for (int i = 0; i < HEAD_DIM; ++i) {
      const int at = (head * HEAD_DIM + i) * HIDDEN;
      const int32_t slot = call->slots[row];
      keys[key_at(call, row, kv_heads, head, slot, i)] = store(dot(weights + KEY + at, normal, HIDDEN));
      values[value_at(call, row, kv_heads, head, slot) + i] =
          store(dot(weights + VALUE + at, normal, HIDDEN));
    }
  }
}

/* One head of one row over positions 0 … position, in order. */
static void attend(const forerun_call* call, int32_t layer, int32_t row, int32_t head, float* scores) {
  const int32_t kv_heads = LAYERS[layer].kv_heads, shared = head / (HEADS / kv_heads);
  const int32_t length = call->positions[row] + 1;
  const element *keys = call->keys[layer], *values = call->values[layer];
  const float* query = (const float*)call->arena + row * HIDDEN + head * HEAD_DIM;
  float largest = -INFINITY, total = 0, sum[HEAD_DIM] = {0};
  for (int32_t position = 0; position < length; ++position) {
    const int32_t slot = slot_of(call, row, position);
    float score = 0;
    for (int i = 0; i < HEAD_DIM; ++i) {
      score += query[i] * load(keys[key_at(call, row, kv_heads, shared, slot, i)]);
    }
    scores[position] = score;
    if (score > largest) largest = score;
  }
  for (int32_t position = 0; position < length; ++position) {
    const float weight = expf(scores[position] - largest);
    const element* value = values + value_at(call, row, kv_heads, shared, slot_of(call, row, position));
    total += weight;
    for (int i = 0; i < HEAD_DIM; ++i) sum[i] += weight * load(value[i]);
  }
  float* out = (float*)call->arena + (TINY_ROWS + row) * HIDDEN + head * HEAD_DIM;
  for (int i = 0; i < HEAD_DIM; ++i) out[i] = sum[i] / total;
}

static void attention(const forerun_call* call, int32_t layer, int32_t tid) {
  const float* output = weights_of(call, layer) + OUTPUT;
  float* scores = (float*)(call->scratch + tid * call->scratch_stride);
  for (int32_t row = tid; row < call->rows; row += call->threads) project(call, layer, row);
  finish(call, layer, PROJECT, tid);
  for (int32_t item = tid; item < call->rows * HEADS; item += call->threads) {
    attend(call, layer, item / HEADS, item % HEADS, scores);
  }
  finish(call, layer, ATTEND, tid);
  for (int32_t item = tid; item < call->rows * HIDDEN; item += call->threads) {
    const float* attended = (const float*)call->arena + (TINY_ROWS + item / HIDDEN) * HIDDEN;
    call->hidden[item] += dot(output + item % HIDDEN * HIDDEN, attended, HIDDEN);
  }
  finish(call, layer, OUT, tid);
}

static void feed_forward(const forerun_call* call, int32_t layer, int32_t tid) {
  const float* weights = weights_of(call, layer);
  float* up = (float*)call->arena;
  for (int32_t item = tid; item < call->rows * FEED_FORWARD; item += call->threads) {
    float normal[HIDDEN];
    normalize(call->hidden + item / FEED_FORWARD * HIDDEN, normal);
    const float value = dot(weights + UP + item % FEED_FORWARD * HIDDEN, normal, HIDDEN);
    up[item] = value / (1 + expf(-value));
  }
  finish(call, layer, UP_ROWS, tid);
  for (int32_t item = tid; item < call->rows * HIDDEN; item += call->threads) {
    const float* down = weights + DOWN + item % HIDDEN * FEED_FORWARD;
    call->hidden[item] += dot(down, up + item / HIDDEN * FEED_FORWARD, FEED_FORWARD);
  }
  finish(call, layer, DOWN_ROWS, tid);
}

static void head(const forerun_call* call, int32_t tid) {
  for (int32_t item = tid; item < call->rows * VOCABULARY; item += call->threads) {
    float normal[HIDDEN];
    normalize(call->hidden + item / VOCABULARY * HIDDEN, normal);
    const float* weights = (const float*)call->weights + HEAD + item % VOCABULARY * HIDDEN;
    call->logits[item] = dot(weights, normal, HIDDEN);
  }
  finish(call, 0, LOGITS, tid);
}

static float head_logit(const forerun_call* call, int32_t row, int32_t id) {
  float normal[HIDDEN];
  normalize(call->hidden + row * HIDDEN, normal);
  return dot((const float*)call->weights + HEAD + id * HIDDEN, normal, HIDDEN);
}

static void head_maxima(const forerun_call* call, int32_t tid) {
  const int32_t blocks = (VOCABULARY + FORERUN_HEAD_BLOCK - 1) / FORERUN_HEAD_BLOCK;
  for (int32_t item = tid; item < call->rows * blocks; item += call->threads) {
    const int32_t row = item / blocks, block = item % blocks;
    float largest = -INFINITY;
    for (int32_t id = block * FORERUN_HEAD_BLOCK; id < VOCABULARY && id < (block + 1) * FORERUN_HEAD_BLOCK;
         ++id) {
      const float logit = head_logit(call, row, id);
      if (!(logit <= largest)) largest = logit == logit ? logit : INFINITY;
    }
    call->maxima[item] = largest;
  }
  finish(call, 0, MAXIMA, tid);
}

static void head_blocks(const forerun_call* call, int32_t tid) {
  for (int32_t item = tid; item < call->item_count * FORERUN_HEAD_BLOCK; item += call->threads) {
    const int32_t id =
        call->items[item / FORERUN_HEAD_BLOCK] * FORERUN_HEAD_BLOCK + item % FORERUN_HEAD_BLOCK;
    call->block_logits[item] = id < VOCABULARY ? head_logit(call, 0, id) : INFINITY;
  }
  finish(call, 0, BLOCKS, tid);
}

static const forerun_program PROGRAM = {
    .abi = TINY_ABI,
    .layers = TINY_LAYERS,
    .hidden_size = HIDDEN,
    .vocabulary_size = VOCABULARY,
    .feature_size = TINY_FEATURES,
    .context_length = TINY_CONTEXT,
    .max_rows = TINY_ROWS,
    .max_gather = MAX_GATHER,
    .kv_element_bytes = sizeof(element),
    .layer = LAYERS,
    .kernels = TINY_KERNELS,
    .kernel = TINY_KERNELS > 9 ? NULL : KERNEL_TABLE,
    .weights_bytes = WEIGHTS * sizeof(float),
    .arena_bytes = 2 * TINY_ROWS * HIDDEN * sizeof(float),
    .scratch_bytes = 0,
    .scratch_bytes_per_position = sizeof(float),
    .embed = EMBED_STEP,
    .attention = attention,
    .feed_forward = feed_forward,
    .head = head,
    .head_maxima = head_maxima,
    .head_blocks = head_blocks,
};

const forerun_program* forerun_program_model(void);
const forerun_program* forerun_program_model(void) {
  return TINY_NULL ? NULL : &PROGRAM;
}
