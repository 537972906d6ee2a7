#include "device/device_program.h"

#include <new>

namespace forerun {

Status DeviceProgram::open(const forerun_device_program& program, const uint8_t* weights) {
  program_ = &program;
  FORERUN_TRY(find_device(program.device, &device_));
  FORERUN_TRY(device_->build(program));
  weights_.reset(new (std::nothrow) DeviceBuffer[program.weight_count]);
  if (!weights_) return fail(FORERUN_OUT_OF_MEMORY, "no memory for the weights");
  std::unique_ptr<Queue> queue;
  FORERUN_TRY(device_->open_queue(&queue));
  for (int32_t i = 0; i < program.weight_count; ++i) {
    const forerun_weight& weight = program.weights[i];
    FORERUN_TRY(weights_[i].reserve(device_.get(), weight.bytes, "weights"));
    queue->write(weights_[i], 0, weights + weight.offset, weight.bytes);
  }
  return queue->finish();
}

Status check_device_program(const forerun_program& program) {
  const forerun_device_program& device = *program.device;
  bool sound = device.device != nullptr && device.kernel_count > 0 && device.kernels != nullptr &&
               device.weights != nullptr && device.weight_count > 0 && device.slot_count > 0 &&
               device.slot_bytes != nullptr && device.block_positions > 0 && device.moves != nullptr &&
               device.attention != nullptr && device.feed_forward != nullptr &&
               device.head.module != nullptr && device.head_maxima.module != nullptr &&
               device.head_blocks.module != nullptr && device.head_picks.module != nullptr &&
               device.pick != nullptr && device.list != nullptr;
  for (int32_t i = 0; sound && i < device.weight_count; ++i) {
    const forerun_weight& weight = device.weights[i];
    sound = weight.offset <= program.weights_bytes && weight.bytes <= program.weights_bytes - weight.offset;
  }
  if (sound) return FORERUN_OK;
  return fail(FORERUN_PROGRAM,
              "the compiled program's tables for its device cannot be; compile the bundle again");
}

}  // namespace forerun
