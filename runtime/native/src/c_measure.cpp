// The part of the C interface that measures.

#include <new>

#include "device/trial.h"
#include "read_speed.h"
#include "visit.h"

using forerun::fail;
using forerun::Profile;
using forerun::require;
using forerun::Visit;

struct forerun_trial final : forerun::Trial {
  int32_t kernels = 0;
};

extern "C" {

int forerun_bundle_kernel_count(const forerun_bundle* bundle, int32_t* count) {
  FORERUN_TRY(require(bundle, "bundle"));
  FORERUN_TRY(require(count, "count"));
  *count = bundle->program().kernels;
  return FORERUN_OK;
}

int forerun_bundle_kernel(const forerun_bundle* bundle, int32_t kernel, forerun_kernel_facts* facts) {
  FORERUN_TRY(require(bundle, "bundle"));
  FORERUN_TRY(require(facts, "facts"));
  const forerun_program& program = bundle->program();
  if (kernel < 0 || kernel >= program.kernels) {
    return fail(FORERUN_INVALID_ARGUMENT, "there is no kernel %d; the program has %d", kernel,
                program.kernels);
  }
  const forerun_kernel& found = program.kernel[kernel];
  *facts = {found.module, found.name, found.call_bytes, found.row_bytes, found.position_bytes, found.window};
  return FORERUN_OK;
}

int forerun_profile_open(forerun_session* session) {
  const Visit visit(session);
  FORERUN_TRY(visit.status());
  if (session->program().kernels == 0) {
    return fail(FORERUN_INVALID_ARGUMENT, "the program of this bundle marks no kernels: it has no profile");
  }
  if (session->profile != nullptr) {
    return fail(FORERUN_INVALID_ARGUMENT, "a profile is open already; close it first");
  }
  std::unique_ptr<Profile> profile(new (std::nothrow) Profile);
  if (!profile) return fail(FORERUN_OUT_OF_MEMORY, "no memory for a profile");
  FORERUN_TRY(profile->reserve(session->program(), session->options.threads));
  session->profile = std::move(profile);
  return FORERUN_OK;
}

int forerun_profile_close(forerun_session* session) {
  const Visit visit(session);
  FORERUN_TRY(visit.status());
  session->profile.reset();
  return FORERUN_OK;
}

int forerun_profile_read(forerun_session* session, uint64_t* ran_ns, uint64_t* waited_ns, uint64_t* core_ns) {
  const Visit visit(session);
  FORERUN_TRY(visit.status());
  FORERUN_TRY(require(ran_ns, "ran_ns"));
  FORERUN_TRY(require(waited_ns, "waited_ns"));
  FORERUN_TRY(require(core_ns, "core_ns"));
  if (session->profile == nullptr || !session->profile->complete()) {
    return fail(FORERUN_NOT_COMPUTED, "there is no profile to read: open one, then run a forward");
  }
  session->profile->read(ran_ns, waited_ns, core_ns);
  return FORERUN_OK;
}

int forerun_measure_device_copy(forerun_session* session, uint64_t bytes, int32_t passes, uint64_t* pass_ns) {
  const Visit visit(session);
  FORERUN_TRY(visit.status());
  FORERUN_TRY(require(pass_ns, "pass_ns"));
  if (session->device == nullptr) {
    return fail(FORERUN_INVALID_ARGUMENT, "the session runs on the CPU: it has no device to measure");
  }
  if (bytes < 4 || bytes % 4 != 0 || passes < 1) {
    return fail(FORERUN_INVALID_ARGUMENT,
                "%llu bytes, %d passes; bytes must be a multiple of 4, both above 0",
                static_cast<unsigned long long>(bytes), passes);
  }
  return session->device->measure_copy(bytes, passes, pass_ns);
}

int forerun_trial_create(const struct forerun_device_program* program, const forerun_trial_array* arrays,
                         int32_t count, forerun_trial** trial) {
  FORERUN_TRY(require(program, "program"));
  FORERUN_TRY(require(arrays, "arrays"));
  FORERUN_TRY(require(trial, "trial"));
  *trial = nullptr;
  bool sound = count > 0 && program->kernel_count > 0;
  for (int32_t i = 0; sound && i < count; ++i) {
    sound = arrays[i].copies >= 0 && arrays[i].bytes > 0 && arrays[i].bytes % 4 == 0;
  }
  if (!sound) {
    return fail(
        FORERUN_INVALID_ARGUMENT,
        "%d kernels, %d arrays; there must be some of both, of at least 4 bytes, a multiple of 4, and "
        "0 copies or more",
        program->kernel_count, count);
  }
  std::unique_ptr<forerun_trial> created(new (std::nothrow) forerun_trial);
  if (!created) return fail(FORERUN_OUT_OF_MEMORY, "no memory for a trial");
  created->kernels = program->kernel_count;
  FORERUN_TRY(created->open(*program, arrays, count));
  *trial = created.release();
  return FORERUN_OK;
}

int forerun_trial_run(forerun_trial* trial, int32_t kernel, int32_t rows, int32_t calls, uint64_t* ns) {
  FORERUN_TRY(require(trial, "trial"));
  FORERUN_TRY(require(ns, "ns"));
  if (kernel < 0 || kernel >= trial->kernels || rows < 1 || calls < 1) {
    return fail(FORERUN_INVALID_ARGUMENT,
                "kernel %d of %d, %d rows, %d calls; rows and calls must be above 0", kernel, trial->kernels,
                rows, calls);
  }
  return trial->run(kernel, rows, calls, ns);
}

void forerun_trial_release(forerun_trial* trial) {
  delete trial;
}

int forerun_measure_read(forerun_session* session, int32_t memory, uint64_t bytes, int32_t passes,
                         uint64_t* pass_ns) {
  const Visit visit(session);
  FORERUN_TRY(visit.status());
  FORERUN_TRY(require(pass_ns, "pass_ns"));
  if (memory != FORERUN_MEMORY_OWN && memory != FORERUN_MEMORY_WEIGHTS) {
    return fail(FORERUN_INVALID_ARGUMENT, "memory is %d; it must be a forerun_memory", memory);
  }
  return measure_read(*session, memory == FORERUN_MEMORY_WEIGHTS, bytes, passes, pass_ns);
}

}  // extern "C"
