// What a session has on a device: its queue, the memory of a call, and the cache.
#ifndef FORERUN_DEVICE_DEVICE_SESSION_H
#define FORERUN_DEVICE_DEVICE_SESSION_H

#include "device/device_program.h"
#include "kv_cache.h"
#include "memory.h"

namespace forerun {

struct Session;

class DeviceSession final : public RemoteCache {
 public:
  // Reserves everything, for a session whose own memory is reserved.
  Status reserve(Session* session);

  // Sends what the rows of a pass are, which the session's workspace holds, with the hidden states of those
  // that do not start from tokens: all but the first `embed_rows`.
  void send_rows(int32_t rows, int32_t embed_rows);
  void embed(int32_t rows);
  void run_step(int32_t step, int32_t rows);
  // Reads `count` hidden states from row `first` on.
  void read_hidden(int32_t first, int32_t count, float* hidden);
  // Makes row `row` the head's row number `k`.
  void give_head(int32_t row, int32_t k);
  // Runs the head for its first `rows` rows and reads logits or, where they are drawn from, maxima and the
  // blocks of logits that draws like `sampling` [rows] look at first; without it each row's likeliest.
  void run_head(int32_t rows, bool draws, const forerun_sampling* sampling);
  // How many blocks of that row came with the maxima, and which.
  int32_t blocks_ahead(int32_t row, const int32_t** blocks) const;
  // Reads the blocks of logits in the workspace's `items` for one of the head's rows: those that came with
  // the maxima, or it computes all of them.
  Status compute_blocks(int32_t row, int32_t count);
  // Copies so many bytes `passes` times and writes the nanoseconds of each.
  Status measure_copy(uint64_t bytes, int32_t passes, uint64_t* pass_ns);
  // Waits for all of it.
  Status finish() { return queue_->finish(); }

  void move_row(int32_t sequence, int32_t from, int32_t to, int32_t first, int32_t last) override;
  void copy_rows(int32_t from, int32_t to, int32_t rows) override;
  Status fetch(int32_t sequence, int32_t rows) override;
  Status send(int32_t sequence, int32_t rows) override;

 private:
  // Rows of a call whose likeliest blocks of logits are computed along with its maxima; most such blocks;
  // words of a row in the table of draws.
  static constexpr int32_t kMostAheadRows = 16, kMostAhead = 512, kDrawWords = 3;

  Status reserve_arrays();
  Status reserve_cache();
  void run(const forerun_layer_module& place, int32_t layer, int32_t rows);
  void launch(const forerun_launch& launch, const int32_t* weights, int32_t layer, int32_t first,
              int32_t rows);
  DeviceArgument argument(const forerun_given& given, const int32_t* weights, int32_t layer) const;
  int32_t block_count(int32_t layer, int32_t first, int32_t rows) const;
  int32_t fill_draws(int32_t rows, const forerun_sampling* sampling);
  void bring_blocks(int32_t rows, const forerun_sampling* sampling);
  bool came_ahead(int32_t row, int32_t count);
  void flush_moves();
  // Where one head's keys, or values, of some slots lie in a sequence's.
  struct Place {
    int32_t layer;
    uint64_t offset, bytes;
  };
  // Bytes of one head's keys, or values, of some slots in a layer; those of all slots and heads.
  uint64_t head_bytes(int32_t layer, int64_t slots) const;
  uint64_t sequence_bytes(int32_t layer) const;
  // Calls transfer(device's memory, host's memory, place) for the keys and the values of slots 0 … rows - 1.
  template <typename Transfer>
  void each_head(int32_t rows, Transfer transfer);

  Session* session_ = nullptr;
  const DeviceProgram* program_ = nullptr;
  std::unique_ptr<Queue> queue_;
  DeviceBuffer arrays_[FORERUN_GIVEN_ARRAYS];  // by kind; weights, slots and the cache have their own
  std::unique_ptr<DeviceBuffer[]> slots_;
  std::unique_ptr<DeviceBuffer[]> keys_;
  std::unique_ptr<DeviceBuffer[]> values_;
  int32_t numbers_[FORERUN_GIVEN_KINDS] = {};  // by kind, of the launch being made
  Region row_table_;                           // int32 [M, 5]
  // Of the last call that is drawn from: its first rows, and for each as many blocks that came along.
  int32_t ahead_rows_ = 0, row_items_ = 0;
  Region draws_;           // uint32 [kMostAheadRows, kDrawWords]
  Region ahead_;           // int32 [ahead_rows_, row_items_], each row's ascending
  Region ahead_logits_;    // float [ahead_rows_, row_items_, FORERUN_HEAD_BLOCK]
  Region draw_positions_;  // int64 [M], of what is drawn from the head's rows
  Region moves_;           // int32 [kMostMoves, 5]
  int32_t move_count_ = 0;
};

}  // namespace forerun

#endif
