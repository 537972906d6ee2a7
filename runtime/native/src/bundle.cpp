#include "bundle.h"

#include <cinttypes>
#include <cstring>
#include <new>

#include "cpu.h"
#include "hash.h"

namespace forerun {
namespace {

constexpr char kManifestName[] = "manifest.json";
constexpr char kWeightsName[] = "weights.bin";
constexpr char kTextName[] = "text.bin";

// Whether this machine runs code compiled for the target.
Status check_machine(const ListedTarget& target) {
  if (target.architecture != cpu_architecture()) {
    return fail(
        FORERUN_ARCHITECTURE,
        "the bundle's target %s is for %s, this machine is %s; compile it for this machine with --target",
        target.name.c_str(), target.architecture.c_str(), cpu_architecture());
  }
  for (const std::string& feature : target.features) {
    if (!cpu_has(feature.c_str())) {
      return fail(
          FORERUN_CPU_FEATURE,
          "the bundle's target %s needs the processor feature %s, which this machine lacks; compile it for "
          "this machine with --target",
          target.name.c_str(), feature.c_str());
    }
    FORERUN_TRY(cpu_enable(feature.c_str()));
  }
  return FORERUN_OK;
}

Status check_file(const ListedFile& listed, const MappedFile& file) {
  if (file.bytes() != listed.bytes) {
    return fail(FORERUN_SIZE,
                "%s has %zu bytes, the manifest says %" PRIu64 "; copy or compile the bundle again",
                listed.name.c_str(), file.bytes(), listed.bytes);
  }
  uint64_t hash = 0;
  FORERUN_TRY(hash_file(file.data(), file.bytes(), &hash));
  if (hash != listed.hash) {
    return fail(FORERUN_HASH, "%s was changed after it was written; copy or compile the bundle again",
                listed.name.c_str());
  }
  return FORERUN_OK;
}

Status refuse_missing(const char* name) {
  return fail(FORERUN_MANIFEST, "manifest.json lists no file %s; compile the bundle again", name);
}

std::string list_targets(const Manifest& manifest) {
  std::string names;
  for (const ListedTarget& target : manifest.targets) names += (names.empty() ? "" : ", ") + target.name;
  return names;
}

}  // namespace

void Bundle::release() {
  if (holds_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete static_cast<forerun_bundle*>(this);
}

Status Bundle::choose_target(const char* name) {
  Status status = FORERUN_OK;
  for (const ListedTarget& target : manifest_.targets) {
    if (name != nullptr && target.name != name) continue;
    status = check_machine(target);
    target_ = target;
    if (status == FORERUN_OK) return FORERUN_OK;
  }
  if (status != FORERUN_OK) return status;
  return fail(FORERUN_UNKNOWN_TARGET, "the bundle was not compiled for target %s; it has %s", name,
              list_targets(manifest_).c_str());
}

Status Bundle::choose_linked(const char* draft, const forerun_linked** chosen) {
  const char* const network = draft != nullptr ? draft : "the model";
  Status status =
      linked_target_.empty()
          ? fail(FORERUN_LIBRARY, "the app holds no program of %s; link the table that forerun package wrote",
                 network)
          : fail(FORERUN_UNKNOWN_TARGET,
                 "the app holds no program of %s for target %s; compile the bundle for it and package it "
                 "again",
                 network, linked_target_.c_str());
  for (int32_t i = 0; i < linked_count_; ++i) {
    const char* const other = linked_[i].draft;
    const bool same = draft == nullptr || other == nullptr ? draft == other : std::strcmp(draft, other) == 0;
    if (!same || (!linked_target_.empty() && linked_target_ != linked_[i].target)) continue;
    status = choose_target(linked_[i].target);
    *chosen = &linked_[i];
    if (status == FORERUN_OK) return FORERUN_OK;
  }
  return status;
}

Status Bundle::check_files(const std::string& folder) {
  bool has_weights = false, has_library = target_.library.empty();
  for (const ListedFile& listed : manifest_.files) {
    const bool is_weights = listed.name == kWeightsName;
    MappedFile other;
    MappedFile* file = is_weights ? &weights_ : listed.name == kTextName ? &text_ : &other;
    FORERUN_TRY(file->open(folder, listed.name));
    FORERUN_TRY(check_file(listed, *file));
    has_weights = has_weights || is_weights;
    has_library = has_library || listed.name == target_.library;
  }
  if (!has_weights) return refuse_missing(kWeightsName);
  return has_library ? FORERUN_OK : refuse_missing(target_.library.c_str());
}

Status Bundle::start_program() {
  FORERUN_TRY(check_program(program(), manifest_, weights_.bytes()));
  if (program().device == nullptr) return FORERUN_OK;
  device_program_.reset(new (std::nothrow) DeviceProgram);
  if (!device_program_) return fail(FORERUN_OUT_OF_MEMORY, "no memory for a device's program");
  return device_program_->open(*program().device, weights_.data());
}

Status Bundle::read(const std::string& folder) {
  folder_ = folder;
  MappedFile text;
  FORERUN_TRY(text.open(folder, kManifestName));
  return read_manifest(reinterpret_cast<const char*>(text.data()), text.bytes(), &manifest_);
}

Status Bundle::open(const std::string& folder, const char* target) {
  FORERUN_TRY(read(folder));
  FORERUN_TRY(choose_target(target));
  if (target_.library.empty()) {
    return fail(FORERUN_LIBRARY,
                "the bundle holds no library for its target %s, whose program is to be part of the app; open "
                "it with forerun_bundle_open_linked",
                target_.name.c_str());
  }
  FORERUN_TRY(check_files(folder));
  FORERUN_TRY(library_.load(folder + "/" + target_.library, target_.library, target_.symbol));
  return start_program();
}

Status Bundle::open_draft(const ListedDraft& listed, Bundle* draft) const {
  {
    MappedFile manifest;  // refuses a path that leads out of the bundle, by ".." or a link
    FORERUN_TRY(manifest.open(folder_, listed.path + "/" + kManifestName));
  }
  const std::string folder = folder_ + "/" + listed.path;
  if (linked_ == nullptr) return draft->open(folder, target_.name.c_str());
  const char* const target = linked_target_.empty() ? nullptr : linked_target_.c_str();
  return draft->open_linked(folder, linked_, linked_count_, target, listed.name.c_str());
}

Status Bundle::open_linked(const std::string& folder, const forerun_linked* linked, int32_t count,
                           const char* target, const char* draft) {
  const forerun_linked* chosen = nullptr;
  linked_ = linked;
  linked_count_ = count;
  if (target != nullptr) linked_target_ = target;
  FORERUN_TRY(read(folder));
  FORERUN_TRY(choose_linked(draft, &chosen));
  // The app's program takes the place of the library, which need not be there.
  target_.library.clear();
  FORERUN_TRY(check_files(folder));
  FORERUN_TRY(library_.take(chosen->program, target_.name));
  return start_program();
}

}  // namespace forerun
