// The head on a device, and what it brings along with the maxima for the draws of its rows. Which blocks
// these are changes no token: draw.cpp asks for what it needs, and what did not come is computed then.

#include <algorithm>
#include <cstring>

#include "device/device_session.h"
#include "sampling.h"
#include "session.h"

namespace forerun {
namespace {

// So many blocks hold, nearly always, the winner and all that could win against it: in 420 draws from logits
// of SmolLM2 always at temperature 0.7, in all but two at temperature 1, and in 98 of 100 at temperature 1.5.
constexpr int32_t kNoisyBlocks = 32;

}  // namespace

void DeviceSession::run_head(int32_t rows, bool draws, const forerun_sampling* sampling) {
  const forerun_device_program& listed = program_->program();
  run(draws ? listed.head_maxima : listed.head, 0, rows);
  const uint64_t size = draws ? session_->head_blocks() : session_->program().vocabulary_size;
  float* const sink = (draws ? session_->work.maxima : session_->work.logits).as<float>();
  queue_->read(arrays_[draws ? FORERUN_GIVEN_MAXIMA : FORERUN_GIVEN_LOGITS], 0, sink,
               rows * size * sizeof(float));
  ahead_rows_ = draws && rows <= kMostAheadRows ? rows : 0;
  if (ahead_rows_ > 0) bring_blocks(rows, sampling);
}

// Fills the table of draws; returns how many blocks of each row are to come along.
int32_t DeviceSession::fill_draws(int32_t rows, const forerun_sampling* sampling) {
  const int32_t most = std::min(kMostAhead / rows, session_->head_blocks());
  int32_t wanted = 1;
  for (int32_t k = 0; k < rows && sampling != nullptr; ++k) {
    const forerun_sampling& own = sampling[k];
    const bool noisy = own.temperature > 0 && own.top_k == 0 && own.top_p == 1;
    const uint64_t key = noise_key(own.seed, draw_positions_.as<int64_t>()[k]);
    // Clamped to what float32 has room for; it is never 0, which says that there is no noise.
    const float inverse = noisy ? static_cast<float>(std::clamp(1 / own.temperature, 1e-20, 1e20)) : 0.0f;
    uint32_t* const words = draws_.as<uint32_t>() + k * kDrawWords;
    words[0] = static_cast<uint32_t>(key);
    words[1] = static_cast<uint32_t>(key >> 32);
    std::memcpy(words + 2, &inverse, sizeof inverse);
    // As many blocks as top_k keeps tokens hold them, ties aside; fewer are of no use.
    const bool filtered = own.temperature > 0 && own.top_k > 0 && own.top_k <= most;
    wanted = std::max(wanted, noisy ? kNoisyBlocks : filtered ? own.top_k : 1);
  }
  return std::min(wanted, most);
}

// Chooses what nearly every draw looks at and reads it, so that a draw need not wait for the device once
// more.
void DeviceSession::bring_blocks(int32_t rows, const forerun_sampling* sampling) {
  const forerun_device_program& listed = program_->program();
  row_items_ = fill_draws(rows, sampling);
  const int32_t items = rows * row_items_;
  numbers_[FORERUN_GIVEN_ROW_ITEMS] = row_items_;
  numbers_[FORERUN_GIVEN_ITEM_COUNT] = items;
  if (row_items_ > 1) {
    queue_->write(arrays_[FORERUN_GIVEN_DRAWS], 0, draws_.as<uint32_t>(),
                  rows * kDrawWords * sizeof(uint32_t));
  }
  run({row_items_ > 1 ? listed.list : listed.pick, nullptr}, 0, rows);
  run(listed.head_picks, 0, rows);
  queue_->read(arrays_[FORERUN_GIVEN_ITEMS], 0, ahead_.as<int32_t>(), items * sizeof(int32_t));
  queue_->read(arrays_[FORERUN_GIVEN_BLOCK_LOGITS], 0, ahead_logits_.as<float>(),
               items * FORERUN_HEAD_BLOCK * sizeof(float));
}

int32_t DeviceSession::blocks_ahead(int32_t row, const int32_t** blocks) const {
  if (row >= ahead_rows_) return 0;
  *blocks = ahead_.as<int32_t>() + row * row_items_;
  return row_items_;
}

// Whether all the blocks that are asked for came along; copies their logits.
bool DeviceSession::came_ahead(int32_t row, int32_t count) {
  if (row >= ahead_rows_) return false;
  const int32_t* blocks = nullptr;
  const int32_t ahead = blocks_ahead(row, &blocks);
  const float* const logits = ahead_logits_.as<float>() + int64_t{row} * row_items_ * FORERUN_HEAD_BLOCK;
  for (int32_t i = 0; i < count; ++i) {
    const int32_t block = session_->work.items.as<int32_t>()[i];
    const int32_t* const found = std::lower_bound(blocks, blocks + ahead, block);
    if (found == blocks + ahead || *found != block) return false;
    std::copy_n(logits + (found - blocks) * FORERUN_HEAD_BLOCK, FORERUN_HEAD_BLOCK,
                session_->work.block_logits.as<float>() + i * FORERUN_HEAD_BLOCK);
  }
  return true;
}

Status DeviceSession::compute_blocks(int32_t row, int32_t count) {
  const uint64_t row_bytes = session_->program().hidden_size * sizeof(float);
  if (came_ahead(row, count)) return FORERUN_OK;
  numbers_[FORERUN_GIVEN_ROW_ITEMS] = count;
  numbers_[FORERUN_GIVEN_ITEM_COUNT] = count;
  queue_->write(arrays_[FORERUN_GIVEN_ITEMS], 0, session_->work.items.as<int32_t>(), count * sizeof(int32_t));
  queue_->copy(arrays_[FORERUN_GIVEN_HEAD_HIDDEN], row * row_bytes, arrays_[FORERUN_GIVEN_DRAWN_HIDDEN], 0,
               row_bytes);
  run(program_->program().head_blocks, 0, 1);
  queue_->read(arrays_[FORERUN_GIVEN_BLOCK_LOGITS], 0, session_->work.block_logits.as<float>(),
               static_cast<uint64_t>(count) * FORERUN_HEAD_BLOCK * sizeof(float));
  return finish();
}

}  // namespace forerun
