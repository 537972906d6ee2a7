#include "draft_network.h"

#include <new>

#include "shapes.h"
#include "tree.h"

namespace forerun {
namespace {

constexpr char kVocabularyName[] = "vocabulary.bin";

}  // namespace

DraftNetwork::~DraftNetwork() {
  delete session_;
  if (bundle_ != nullptr) bundle_->release();
}

Status DraftNetwork::open(Session& model, const ListedDraft& listed) {
  listed_ = &listed;
  FORERUN_TRY(open_session(model));
  FORERUN_TRY(check_sizes(model));
  FORERUN_TRY(read_vocabulary(model));
  return reserve_followed();
}

Status DraftNetwork::open_session(Session& model) {
  bundle_ = new (std::nothrow) forerun_bundle;
  session_ = new (std::nothrow) forerun_session;
  if (bundle_ == nullptr || session_ == nullptr) return no_memory("a draft network");
  FORERUN_TRY(model.bundle->open_draft(*listed_, bundle_));
  forerun_session_options options{};
  options.sequences = model.options.sequences;
  options.capacity = model.options.capacity;
  options.team_of = static_cast<forerun_session*>(&model);
  FORERUN_TRY(session_->create(bundle_, options));
  int32_t number = 0;
  for (int32_t s = 0; s < options.sequences; ++s) FORERUN_TRY(create_sequence(*session_, &number));
  return FORERUN_OK;
}

// What the drafters take for granted of a network of this kind.
Status DraftNetwork::check_sizes(const Session& model) const {
  const forerun_program& own = session_->program();
  const int32_t hidden_size = model.program().hidden_size, taps = listed_->tap_count;
  const bool is_feature = listed_->component == "feature";
  const int64_t features = is_feature ? int64_t{hidden_size} * (taps + 1) : 0;
  bool sound = taps >= 1 && listed_->heads >= 1 && own.hidden_size == hidden_size &&
               own.feature_size == features && own.layers % listed_->heads == 0 &&
               own.layers / listed_->heads <= kMostRows;
  for (int32_t tap = 0; tap < taps; ++tap) sound = sound && listed_->taps[tap] < model.program().layers;
  if (sound) return FORERUN_OK;
  return fail(
      FORERUN_MANIFEST,
      "draft %s does not fit the model (hidden size %d for %d, %d features, %d taps, %d layers for %d "
      "heads); compile the bundle again",
      listed_->name.c_str(), own.hidden_size, hidden_size, own.feature_size, taps, own.layers,
      listed_->heads);
}

Status DraftNetwork::read_vocabulary(const Session& model) {
  named_ = session_->program().vocabulary_size - 1;
  FORERUN_TRY(vocabulary_.open(bundle_->folder(), kVocabularyName));
  const int32_t size = model.program().vocabulary_size;
  if (named_ < 1 || vocabulary_.bytes() != static_cast<size_t>(named_) * sizeof(int32_t)) {
    return fail(FORERUN_SIZE, "%s of draft %s has %zu bytes for %d tokens; copy or compile the bundle again",
                kVocabularyName, listed_->name.c_str(), vocabulary_.bytes(), named_);
  }
  token_ids_ = reinterpret_cast<const int32_t*>(vocabulary_.data());
  FORERUN_TRY(draft_ids_.reserve(size, sizeof(int32_t), "a draft's vocabulary"));
  int32_t* const draft_ids = draft_ids_.as<int32_t>();
  for (int32_t id = 0; id < size; ++id) draft_ids[id] = named_;
  for (int32_t i = 0; i < named_; ++i) {
    if (token_ids_[i] < 0 || token_ids_[i] >= size) {
      return fail(FORERUN_MANIFEST,
                  "%s of draft %s names token %d; the model has %d; compile the bundle again",
                  kVocabularyName, listed_->name.c_str(), token_ids_[i], size);
    }
    draft_ids[token_ids_[i]] = i;
  }
  return FORERUN_OK;
}

Status DraftNetwork::reserve_followed() {
  const uint64_t sequences = session_->options.sequences, capacity = session_->options.capacity;
  FORERUN_TRY(followed_.reserve(sequences, sizeof(Followed), "a draft's text"));
  FORERUN_TRY(texts_.reserve(sequences * 2, capacity * sizeof(int32_t), "a draft's text"));
  for (uint64_t s = 0; s < sequences; ++s) {
    int32_t* const text = texts_.as<int32_t>() + 2 * s * capacity;
    followed_.as<Followed>()[s] = {text, 0, text + capacity, 0};
  }
  return FORERUN_OK;
}

}  // namespace forerun
