// The C interface: checks pointers, keeps a second thread out, and hands over to the parts behind it.

#include <algorithm>
#include <cstring>
#include <new>

#include "bundle.h"
#include "hash.h"
#include "saved_sequence.h"
#include "visit.h"

namespace forerun {
namespace {

constexpr char kVersion[] = "0.1.0";

}  // namespace
}  // namespace forerun

using forerun::fail;
using forerun::require;
using forerun::Sequence;
using forerun::Visit;

extern "C" {

const char* forerun_last_error(void) {
  return forerun::last_error();
}

const char* forerun_version(void) {
  return forerun::kVersion;
}

uint64_t forerun_hash64(const void* data, size_t bytes, uint64_t seed) {
  return forerun::hash64(data, bytes, seed);
}

int forerun_bundle_open(const char* path, const char* target, forerun_bundle** bundle) {
  FORERUN_TRY(require(path, "path"));
  FORERUN_TRY(require(bundle, "bundle"));
  *bundle = nullptr;
  forerun_bundle* opened = new (std::nothrow) forerun_bundle;
  if (opened == nullptr) return fail(FORERUN_OUT_OF_MEMORY, "no memory for a bundle");
  const forerun::Status status = opened->open(path, target);
  if (status != FORERUN_OK) {
    opened->release();
    return status;
  }
  *bundle = opened;
  return FORERUN_OK;
}

void forerun_bundle_release(forerun_bundle* bundle) {
  if (bundle != nullptr) bundle->release();
}

int forerun_bundle_model(const forerun_bundle* bundle, forerun_model* model) {
  FORERUN_TRY(require(bundle, "bundle"));
  FORERUN_TRY(require(model, "model"));
  const forerun_program& program = bundle->program();
  *model = {program.layers,   program.hidden_size, program.vocabulary_size,  program.context_length,
            program.max_rows, program.max_gather,  program.kv_element_bytes, program.feature_size};
  return FORERUN_OK;
}

int forerun_bundle_layer(const forerun_bundle* bundle, int32_t layer, int32_t* kv_heads, int32_t* head_dim) {
  FORERUN_TRY(require(bundle, "bundle"));
  FORERUN_TRY(require(kv_heads, "kv_heads"));
  FORERUN_TRY(require(head_dim, "head_dim"));
  const forerun_program& program = bundle->program();
  if (layer < 0 || layer >= program.layers) {
    return fail(FORERUN_INVALID_ARGUMENT, "there is no layer %d; the model has %d", layer, program.layers);
  }
  *kv_heads = program.layer[layer].kv_heads;
  *head_dim = program.layer[layer].head_dim;
  return FORERUN_OK;
}

int forerun_bundle_cache_bytes(const forerun_bundle* bundle, int32_t capacity, uint64_t* bytes) {
  FORERUN_TRY(require(bundle, "bundle"));
  FORERUN_TRY(require(bytes, "bytes"));
  const forerun_program& program = bundle->program();
  if (capacity < 0) return fail(FORERUN_INVALID_ARGUMENT, "capacity is %d; it must be 0 or more", capacity);
  *bytes = forerun::KvCache::bytes(program, capacity > 0 ? capacity : program.context_length);
  return FORERUN_OK;
}

const char* forerun_bundle_device(const forerun_bundle* bundle) {
  const bool has = bundle != nullptr && bundle->device_program() != nullptr;
  return has ? bundle->device_program()->device()->name().c_str() : "";
}

int forerun_find_device(const char* interface, char* name, size_t room) {
  FORERUN_TRY(require(interface, "interface"));
  FORERUN_TRY(require(name, "name"));
  std::unique_ptr<forerun::Device> device;
  FORERUN_TRY(forerun::find_device(interface, &device));
  if (room > 0) {
    const size_t bytes = std::min(room - 1, device->name().size());
    std::memcpy(name, device->name().data(), bytes);
    name[bytes] = '\0';
  }
  return FORERUN_OK;
}

const char* forerun_bundle_target(const forerun_bundle* bundle) {
  return bundle != nullptr ? bundle->target().c_str() : "";
}

int forerun_session_create(forerun_bundle* bundle, const forerun_session_options* options,
                           forerun_session** session) {
  FORERUN_TRY(require(bundle, "bundle"));
  FORERUN_TRY(require(session, "session"));
  *session = nullptr;
  forerun_session* created = new (std::nothrow) forerun_session;
  if (created == nullptr) return fail(FORERUN_OUT_OF_MEMORY, "no memory for a session");
  const forerun::Status status =
      created->create(bundle, options != nullptr ? *options : forerun_session_options{});
  if (status != FORERUN_OK) {
    delete created;
    return status;
  }
  *session = created;
  return FORERUN_OK;
}

void forerun_session_release(forerun_session* session) {
  delete session;
}

int forerun_session_describe(const forerun_session* session, forerun_session_options* options) {
  FORERUN_TRY(require(session, "session"));
  FORERUN_TRY(require(options, "options"));
  *options = session->options;
  return FORERUN_OK;
}

int forerun_sequence_create(forerun_session* session, int32_t* sequence) {
  const Visit visit(session);
  FORERUN_TRY(visit.status());
  FORERUN_TRY(require(sequence, "sequence"));
  return create_sequence(*session, sequence);
}

int forerun_sequence_release(forerun_session* session, int32_t sequence) {
  const Visit visit(session);
  Sequence* found = nullptr;
  FORERUN_TRY(visit.status());
  FORERUN_TRY(find_sequence(*session, sequence, &found));
  found->used = false;
  return FORERUN_OK;
}

int forerun_sequence_fork(forerun_session* session, int32_t sequence, int32_t* fork) {
  const Visit visit(session);
  FORERUN_TRY(visit.status());
  FORERUN_TRY(require(fork, "fork"));
  return fork_sequence(*session, sequence, fork);
}

int forerun_sequence_tokens(forerun_session* session, int32_t sequence, int32_t* token_ids, int32_t room,
                            int32_t* count) {
  const Visit visit(session);
  Sequence* found = nullptr;
  FORERUN_TRY(visit.status());
  FORERUN_TRY(require(count, "count"));
  if (room > 0) FORERUN_TRY(require(token_ids, "token_ids"));
  FORERUN_TRY(find_sequence(*session, sequence, &found));
  *count = found->committed;
  for (int32_t slot = 0; slot < found->committed && slot < room; ++slot) {
    token_ids[slot] = found->rows[slot].token;
  }
  return FORERUN_OK;
}

int forerun_sequence_save(forerun_session* session, int32_t sequence, const char* path) {
  const Visit visit(session);
  FORERUN_TRY(visit.status());
  FORERUN_TRY(require(path, "path"));
  return save_sequence(*session, sequence, path);
}

int forerun_sequence_restore(forerun_session* session, const char* path, int32_t* sequence) {
  const Visit visit(session);
  FORERUN_TRY(visit.status());
  FORERUN_TRY(require(path, "path"));
  FORERUN_TRY(require(sequence, "sequence"));
  return restore_sequence(*session, path, sequence);
}

int forerun_sequence_describe(forerun_session* session, int32_t sequence, forerun_sequence_state* state) {
  const Visit visit(session);
  Sequence* found = nullptr;
  FORERUN_TRY(visit.status());
  FORERUN_TRY(require(state, "state"));
  FORERUN_TRY(find_sequence(*session, sequence, &found));
  *state = {found->committed, found->staged, found->pending_count};
  return FORERUN_OK;
}

int forerun_stage(forerun_session* session, int32_t sequence, int32_t count, const int32_t* token_ids,
                  const int32_t* parents) {
  const Visit visit(session);
  Sequence* found = nullptr;
  FORERUN_TRY(visit.status());
  FORERUN_TRY(require(token_ids, "token_ids"));
  FORERUN_TRY(find_sequence(*session, sequence, &found));
  return stage_rows(*session, *found, {count, token_ids, nullptr, nullptr, parents, 0});
}

int forerun_stage_features(forerun_session* session, int32_t sequence, int32_t count,
                           const int32_t* token_ids, const float* features, const int32_t* parents) {
  const Visit visit(session);
  Sequence* found = nullptr;
  FORERUN_TRY(visit.status());
  FORERUN_TRY(require(token_ids, "token_ids"));
  FORERUN_TRY(require(features, "features"));
  FORERUN_TRY(find_sequence(*session, sequence, &found));
  return stage_rows(*session, *found, {count, token_ids, features, nullptr, parents, 0});
}

int forerun_stage_hidden(forerun_session* session, int32_t sequence, int32_t count, const float* hidden,
                         const int32_t* parents, int32_t start) {
  const Visit visit(session);
  Sequence* found = nullptr;
  FORERUN_TRY(visit.status());
  FORERUN_TRY(require(hidden, "hidden"));
  FORERUN_TRY(find_sequence(*session, sequence, &found));
  return stage_rows(*session, *found, {count, nullptr, nullptr, hidden, parents, start});
}

int forerun_commit(forerun_session* session, int32_t sequence, int32_t count, const int32_t* path) {
  const Visit visit(session);
  FORERUN_TRY(visit.status());
  if (count < 0) return fail(FORERUN_INVALID_ARGUMENT, "a path cannot have %d rows", count);
  if (count > 0) FORERUN_TRY(require(path, "path"));
  return commit_path(*session, sequence, count, path);
}

int forerun_rewind(forerun_session* session, int32_t sequence, int32_t length) {
  const Visit visit(session);
  Sequence* found = nullptr;
  FORERUN_TRY(visit.status());
  FORERUN_TRY(find_sequence(*session, sequence, &found));
  return rewind_sequence(*session, *found, length);
}

int forerun_row_done(forerun_session* session, int32_t sequence, int32_t slot, int32_t* done) {
  const Visit visit(session);
  Sequence* found = nullptr;
  FORERUN_TRY(visit.status());
  FORERUN_TRY(require(done, "done"));
  FORERUN_TRY(find_sequence(*session, sequence, &found));
  if (slot < 0 || slot >= found->committed + found->staged) {
    return fail(FORERUN_INVALID_ARGUMENT, "there is no row in slot %d; the sequence has %d", slot,
                found->committed + found->staged);
  }
  *done = found->rows[slot].done;
  return FORERUN_OK;
}

int forerun_forward(forerun_session* session, const forerun_request* request, forerun_result* result) {
  const Visit visit(session);
  FORERUN_TRY(visit.status());
  FORERUN_TRY(require(request, "request"));
  FORERUN_TRY(require(result, "result"));
  return forward(*session, *request, result);
}

int forerun_read_kv(forerun_session* session, int32_t sequence, int32_t layer, int32_t start, int32_t stop,
                    float* keys, float* values) {
  const Visit visit(session);
  Sequence* found = nullptr;
  FORERUN_TRY(visit.status());
  FORERUN_TRY(require(keys, "keys"));
  FORERUN_TRY(require(values, "values"));
  FORERUN_TRY(find_sequence(*session, sequence, &found));
  if (layer < 0 || layer >= session->program().layers || start < 0 || stop < start ||
      stop > found->committed + found->staged) {
    return fail(FORERUN_INVALID_ARGUMENT, "there are no slots %d to %d of layer %d: %d slots, %d layers",
                start, stop, layer, found->committed + found->staged, session->program().layers);
  }
  for (int32_t slot = start; slot < stop; ++slot) {
    if (is_filled(*session, *found, slot, layer)) continue;
    return fail(FORERUN_NOT_COMPUTED, "slot %d holds no keys and values of layer %d yet", slot, layer);
  }
  const int32_t oldest = oldest_kept(*session, *found, layer);
  if (start < stop && start < oldest) {
    return fail(FORERUN_NOT_COMPUTED,
                "layer %d sees a window of %d positions: slot %d is gone, the oldest is %d", layer,
                session->program().layer[layer].window, start, oldest);
  }
  FORERUN_TRY(session->cache.fetch(sequence, stop));
  session->cache.read(sequence, layer, start, stop, keys, values);
  return FORERUN_OK;
}

int forerun_sample(forerun_session* session, const float* logits, const forerun_sampling* sampling,
                   int64_t position, int32_t* token_id) {
  const Visit visit(session);
  FORERUN_TRY(visit.status());
  FORERUN_TRY(require(logits, "logits"));
  FORERUN_TRY(require(sampling, "sampling"));
  FORERUN_TRY(require(token_id, "token_id"));
  return sample(*session, logits, *sampling, position, token_id);
}

int forerun_draw(forerun_session* session, int32_t index, const forerun_sampling* sampling, int64_t position,
                 int32_t* token_id) {
  const Visit visit(session);
  FORERUN_TRY(visit.status());
  FORERUN_TRY(require(sampling, "sampling"));
  FORERUN_TRY(require(token_id, "token_id"));
  return draw(*session, index, *sampling, position, token_id);
}

int forerun_rank(forerun_session* session, const forerun_draft_logits* logits,
                 const forerun_sampling* sampling, int64_t position, int32_t wanted, forerun_choice* choices,
                 int32_t* found) {
  const Visit visit(session);
  FORERUN_TRY(visit.status());
  FORERUN_TRY(require(logits, "logits"));
  FORERUN_TRY(require(logits->values, "logits->values"));
  FORERUN_TRY(require(sampling, "sampling"));
  FORERUN_TRY(require(choices, "choices"));
  FORERUN_TRY(require(found, "found"));
  return rank(*session, *logits, *sampling, position, wanted, choices, found);
}

}  // extern "C"
