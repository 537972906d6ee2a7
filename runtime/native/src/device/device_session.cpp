#include "device/device_session.h"

#include <algorithm>
#include <new>

#include "clock.h"
#include "session.h"

namespace forerun {
namespace {

constexpr int32_t kRowFields = 5, kMoveFields = 5;
constexpr int32_t kMostMoves = 1024;

// Rows of a kernel's tile: as few tiles as can be, all of nearly the same size.
int32_t tile_rows(int32_t rows, int32_t most) {
  const int32_t tiles = (rows + most - 1) / most;
  return (rows + tiles - 1) / tiles;
}

}  // namespace

Status DeviceSession::reserve(Session* session) {
  session_ = session;
  program_ = session->bundle->device_program();
  FORERUN_TRY(program_->device()->open_queue(&queue_));
  FORERUN_TRY(reserve_arrays());
  FORERUN_TRY(reserve_cache());
  return finish();  // some devices say only now that there is no memory
}

Status DeviceSession::reserve_arrays() {
  const forerun_program& program = session_->program();
  const forerun_device_program& listed = program_->program();
  Device* const device = program_->device();
  const uint64_t rows = program.max_rows, word = sizeof(float), blocks = session_->head_blocks();
  const uint64_t hidden = rows * program.hidden_size * word;
  const uint64_t positions = session_->cache.capacity();
  uint64_t bytes[FORERUN_GIVEN_ARRAYS] = {};
  bytes[FORERUN_GIVEN_HIDDEN] = bytes[FORERUN_GIVEN_HEAD_HIDDEN] = hidden;
  bytes[FORERUN_GIVEN_DRAWN_HIDDEN] = program.hidden_size * word;
  bytes[FORERUN_GIVEN_FEATURES] = rows * program.feature_size * word;
  bytes[FORERUN_GIVEN_LOGITS] = rows * program.vocabulary_size * word;
  bytes[FORERUN_GIVEN_MAXIMA] = rows * blocks * word;
  const uint64_t items = std::max<uint64_t>(blocks, kMostAhead);
  bytes[FORERUN_GIVEN_DRAWS] = kMostAheadRows * kDrawWords * word;
  bytes[FORERUN_GIVEN_ITEMS] = items * word;
  bytes[FORERUN_GIVEN_BLOCK_LOGITS] = items * FORERUN_HEAD_BLOCK * word;
  bytes[FORERUN_GIVEN_ROW_TABLE] = rows * kRowFields * word;
  bytes[FORERUN_GIVEN_GATHER] = rows * session_->work.gather_stride * word;
  bytes[FORERUN_GIVEN_PARTS] = (positions / listed.block_positions + 1) * listed.part_bytes;
  bytes[FORERUN_GIVEN_MOVES] = kMostMoves * kMoveFields * word;
  for (int32_t kind = 0; kind < FORERUN_GIVEN_ARRAYS; ++kind) {
    if (bytes[kind] > 0) FORERUN_TRY(arrays_[kind].reserve(device, bytes[kind], "the memory of a call"));
  }
  slots_.reset(new (std::nothrow) DeviceBuffer[listed.slot_count]);
  if (!slots_) return fail(FORERUN_OUT_OF_MEMORY, "no memory for a device's session");
  for (int32_t i = 0; i < listed.slot_count; ++i) {
    FORERUN_TRY(slots_[i].reserve(device, listed.slot_bytes[i], "activations"));
  }
  FORERUN_TRY(row_table_.reserve(rows, kRowFields * sizeof(int32_t), "the rows of a call"));
  FORERUN_TRY(draws_.reserve(kMostAheadRows, kDrawWords * sizeof(uint32_t), "the rows of a call"));
  FORERUN_TRY(ahead_.reserve(kMostAhead, sizeof(int32_t), "the rows of a call"));
  FORERUN_TRY(ahead_logits_.reserve(kMostAhead, FORERUN_HEAD_BLOCK * sizeof(float), "the rows of a call"));
  FORERUN_TRY(draw_positions_.reserve(rows, sizeof(int64_t), "the rows of a call"));
  return moves_.reserve(kMostMoves, kMoveFields * sizeof(int32_t), "the rows of a call");
}

Status DeviceSession::reserve_cache() {
  const int32_t layers = session_->program().layers;
  keys_.reset(new (std::nothrow) DeviceBuffer[layers]);
  values_.reset(new (std::nothrow) DeviceBuffer[layers]);
  if (!keys_ || !values_) return fail(FORERUN_OUT_OF_MEMORY, "no memory for the cache");
  const uint64_t sequences = session_->options.sequences;
  for (int32_t l = 0; l < layers; ++l) {
    for (DeviceBuffer* buffer : {&keys_[l], &values_[l]}) {
      FORERUN_TRY(buffer->reserve(program_->device(), sequences * sequence_bytes(l),
                                  "the keys and values of all positions"));
    }
  }
  return FORERUN_OK;
}

uint64_t DeviceSession::head_bytes(int32_t layer, int64_t slots) const {
  const forerun_layer& sizes = session_->program().layer[layer];
  return static_cast<uint64_t>(slots) * sizes.head_dim * session_->program().kv_element_bytes;
}

uint64_t DeviceSession::sequence_bytes(int32_t layer) const {
  return session_->program().layer[layer].kv_heads * head_bytes(layer, session_->cache.slots(layer));
}

int32_t DeviceSession::block_count(int32_t layer, int32_t first, int32_t rows) const {
  const int32_t block = program_->program().block_positions, window = session_->program().layer[layer].window;
  const int32_t* positions = session_->work.positions.as<int32_t>();
  int32_t most = 0;
  for (int32_t i = first; i < first + rows; ++i) {
    const int32_t seen = window > 0 ? std::max(positions[i] + 1 - window, 0) : 0;
    most = std::max(most, positions[i] / block - seen / block + 1);
  }
  return most;
}

DeviceArgument DeviceSession::argument(const forerun_given& given, const int32_t* weights,
                                       int32_t layer) const {
  switch (given.kind) {
    case FORERUN_GIVEN_WEIGHT:
      return {program_->weight(weights[given.index]).handle(), 0};
    case FORERUN_GIVEN_SLOT:
      return {slots_[given.index].handle(), 0};
    case FORERUN_GIVEN_KEYS:
      return {keys_[layer].handle(), 0};
    case FORERUN_GIVEN_VALUES:
      return {values_[layer].handle(), 0};
    case FORERUN_GIVEN_CONSTANT:
      return {nullptr, given.index};
    default:
      break;
  }
  if (given.kind < FORERUN_GIVEN_ARRAYS) return {arrays_[given.kind].handle(), 0};
  return {nullptr, numbers_[given.kind]};
}

void DeviceSession::launch(const forerun_launch& launch, const int32_t* weights, int32_t layer, int32_t first,
                           int32_t rows) {
  const int32_t number = launch.kernels[launch.tile_rows > 0 ? tile_rows(rows, launch.tile_rows) : 0];
  const forerun_device_kernel& kernel = program_->program().kernels[number];
  numbers_[FORERUN_GIVEN_ROWS] = rows;
  numbers_[FORERUN_GIVEN_FIRST_ROW] = first;
  DeviceArgument given[kMostArguments];
  for (int32_t i = 0; i < kernel.argument_count; ++i) {
    given[i] = argument(launch.given[kernel.arguments[i]], weights, layer);
  }
  const int32_t columns = kernel.columns_kind != 0 ? numbers_[kernel.columns_kind] : kernel.columns;
  const int32_t tiles = kernel.rows > 0 ? (rows + kernel.rows - 1) / kernel.rows : 1;
  queue_->launch(number, given, columns * kernel.each, tiles);
}

void DeviceSession::run(const forerun_layer_module& place, int32_t layer, int32_t rows) {
  if (place.module == nullptr) return;
  numbers_[FORERUN_GIVEN_LAYER] = layer;
  const forerun_module& module = *place.module;
  for (int32_t i = 0; i < module.launch_count; i += module.launches[i].stages) {
    const forerun_launch* const stages = module.launches + i;
    const int32_t most = stages->chunk_rows > 0 ? stages->chunk_rows : rows;
    for (int32_t first = 0; first < rows; first += most) {
      const int32_t count = std::min(most, rows - first);
      if (stages->chunk_rows > 0) numbers_[FORERUN_GIVEN_BLOCK_COUNT] = block_count(layer, first, count);
      for (int32_t s = 0; s < stages->stages; ++s) launch(stages[s], place.weights, layer, first, count);
    }
  }
}

void DeviceSession::send_rows(int32_t rows, int32_t embed_rows) {
  const Workspace& work = session_->work;
  const forerun_program& program = session_->program();
  const uint64_t row_bytes = program.hidden_size * sizeof(float);
  numbers_[FORERUN_GIVEN_CAPACITY] = static_cast<int32_t>(session_->cache.capacity());
  numbers_[FORERUN_GIVEN_GATHER_STRIDE] = static_cast<int32_t>(work.gather_stride);
  flush_moves();
  const Region* const fields[kRowFields] = {&work.token_ids, &work.positions, &work.sequences, &work.slots,
                                            &work.gather_start};
  int32_t* const table = row_table_.as<int32_t>();
  for (int32_t i = 0; i < rows; ++i) {
    for (int32_t f = 0; f < kRowFields; ++f) table[i * kRowFields + f] = fields[f]->as<int32_t>()[i];
  }
  queue_->write(arrays_[FORERUN_GIVEN_ROW_TABLE], 0, table, rows * kRowFields * sizeof(int32_t));
  queue_->write(arrays_[FORERUN_GIVEN_GATHER], 0, work.gather.as<int32_t>(),
                rows * work.gather_stride * sizeof(int32_t));
  if (program.feature_size > 0) {
    queue_->write(arrays_[FORERUN_GIVEN_FEATURES], 0, work.features.as<float>(),
                  embed_rows * program.feature_size * sizeof(float));
  }
  queue_->write(arrays_[FORERUN_GIVEN_HIDDEN], embed_rows * row_bytes,
                work.hidden.as<float>() + static_cast<int64_t>(embed_rows) * program.hidden_size,
                (rows - embed_rows) * row_bytes);
}

void DeviceSession::embed(int32_t rows) {
  run(program_->program().embed, 0, rows);
}

void DeviceSession::run_step(int32_t step, int32_t rows) {
  const forerun_device_program& listed = program_->program();
  const forerun_layer_module* const places = step % 2 == 0 ? listed.attention : listed.feed_forward;
  const int32_t layer = step / 2;
  run(places[layer], layer, rows);
}

void DeviceSession::read_hidden(int32_t first, int32_t count, float* hidden) {
  const uint64_t row_bytes = session_->program().hidden_size * sizeof(float);
  queue_->read(arrays_[FORERUN_GIVEN_HIDDEN], first * row_bytes, hidden, count * row_bytes);
}

void DeviceSession::give_head(int32_t row, int32_t k) {
  const uint64_t row_bytes = session_->program().hidden_size * sizeof(float);
  queue_->copy(arrays_[FORERUN_GIVEN_HIDDEN], row * row_bytes, arrays_[FORERUN_GIVEN_HEAD_HIDDEN],
               k * row_bytes, row_bytes);
  draw_positions_.as<int64_t>()[k] = session_->work.positions.as<int32_t>()[row] + int64_t{1};
}

Status DeviceSession::measure_copy(uint64_t bytes, int32_t passes, uint64_t* pass_ns) {
  DeviceBuffer from, to;
  FORERUN_TRY(from.reserve(program_->device(), bytes, "what is copied"));
  FORERUN_TRY(to.reserve(program_->device(), bytes, "what is copied"));
  FORERUN_TRY(finish());
  for (int32_t i = 0; i < passes; ++i) {
    const uint64_t begin = now_ns();
    queue_->copy(from, 0, to, 0, bytes);
    FORERUN_TRY(finish());
    pass_ns[i] = now_ns() - begin;
  }
  return FORERUN_OK;
}

void DeviceSession::move_row(int32_t sequence, int32_t from, int32_t to, int32_t first, int32_t last) {
  if (first >= last) return;
  if (move_count_ == kMostMoves) {
    flush_moves();
    finish();  // the list is read by then; what fails is said by the next pass
  }
  const int32_t move[kMoveFields] = {sequence, from, to, first, last};
  std::copy_n(move, kMoveFields, moves_.as<int32_t>() + move_count_++ * kMoveFields);
}

void DeviceSession::flush_moves() {
  if (move_count_ == 0) return;
  numbers_[FORERUN_GIVEN_CAPACITY] = static_cast<int32_t>(session_->cache.capacity());
  numbers_[FORERUN_GIVEN_MOVE_COUNT] = move_count_;
  const int32_t* const moves = moves_.as<int32_t>();
  queue_->write(arrays_[FORERUN_GIVEN_MOVES], 0, moves, move_count_ * kMoveFields * sizeof(int32_t));
  for (int32_t l = 0; l < session_->program().layers; ++l) {
    bool moves_any = false;
    for (int32_t i = 0; i < move_count_; ++i) {
      const int32_t* const move = moves + i * kMoveFields;
      moves_any = moves_any || (l >= move[3] && l < move[4]);
    }
    if (moves_any) run({program_->program().moves[l], nullptr}, l, 1);
  }
  move_count_ = 0;
}

template <typename Transfer>
void DeviceSession::each_head(int32_t rows, Transfer transfer) {
  const auto blocks = static_cast<int64_t>(round_up(static_cast<uint64_t>(rows), FORERUN_KEY_BLOCK));
  for (int32_t l = 0; l < session_->program().layers; ++l) {
    const int64_t slots = session_->cache.slots(l);
    const uint64_t bytes = head_bytes(l, std::min(blocks, slots));
    for (int32_t h = 0; h < session_->program().layer[l].kv_heads; ++h) {
      const Place place{l, h * head_bytes(l, slots), bytes};
      transfer(keys_[l], static_cast<uint8_t*>(session_->cache.keys()[l]), place);
      transfer(values_[l], static_cast<uint8_t*>(session_->cache.values()[l]), place);
    }
  }
}

void DeviceSession::copy_rows(int32_t from, int32_t to, int32_t rows) {
  flush_moves();
  each_head(rows, [&](const DeviceBuffer& buffer, const uint8_t*, const Place& place) {
    const uint64_t bytes = sequence_bytes(place.layer);
    queue_->copy(buffer, from * bytes + place.offset, buffer, to * bytes + place.offset, place.bytes);
  });
  finish();  // the list of moves is read by then; what fails is said by the next pass
}

Status DeviceSession::fetch(int32_t sequence, int32_t rows) {
  flush_moves();
  each_head(rows, [&](const DeviceBuffer& buffer, uint8_t* data, const Place& place) {
    const uint64_t offset = sequence * sequence_bytes(place.layer) + place.offset;
    queue_->read(buffer, offset, data + offset, place.bytes);
  });
  return finish();
}

Status DeviceSession::send(int32_t sequence, int32_t rows) {
  flush_moves();
  each_head(rows, [&](const DeviceBuffer& buffer, const uint8_t* data, const Place& place) {
    const uint64_t offset = sequence * sequence_bytes(place.layer) + place.offset;
    queue_->write(buffer, offset, data + offset, place.bytes);
  });
  return finish();
}

}  // namespace forerun
