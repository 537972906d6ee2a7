// An opened bundle: verified, its weights mapped, its library for one target loaded.
#ifndef FORERUN_BUNDLE_H
#define FORERUN_BUNDLE_H

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "compiled.h"
#include "device/device_program.h"
#include "file.h"
#include "forerun/linked.h"
#include "forerun/program.h"
#include "manifest.h"
#include "status.h"

namespace forerun {

class Bundle {
 public:
  // Opens the bundle in `folder` for `target` (nullptr: the first that this machine runs).
  Status open(const std::string& folder, const char* target);

  // Opens it for the first of these programs of the app that this machine runs: of those for `target`
  // (nullptr: any) and of a draft (nullptr: of the model).
  Status open_linked(const std::string& folder, const forerun_linked* linked, int32_t count,
                     const char* target, const char* draft = nullptr);

  // Opens a draft of this bundle, by a library of its own or a program of the app, as this one was.
  Status open_draft(const ListedDraft& listed, Bundle* draft) const;

  const forerun_program& program() const { return *library_.program(); }
  const uint8_t* weights() const { return weights_.data(); }
  const DeviceProgram* device_program() const { return device_program_.get(); }
  const MappedFile& text() const { return text_; }
  const std::string& no_text() const { return manifest_.no_text; }
  const std::string& target() const { return target_.name; }
  // Tells bundles apart: a hash of the manifest, and through it of every file.
  uint64_t identity() const { return manifest_.hash; }
  const std::string& folder() const { return folder_; }
  const std::vector<ListedDraft>& drafts() const { return manifest_.drafts; }

  // Sessions and callers share a bundle; the last hold to go deletes it.
  void hold() { holds_.fetch_add(1, std::memory_order_relaxed); }
  void release();

 private:
  Status read(const std::string& folder);
  Status choose_target(const char* name);
  Status choose_linked(const char* draft, const forerun_linked** chosen);
  Status check_files(const std::string& folder);
  Status start_program();

  std::string folder_;
  Manifest manifest_;
  ListedTarget target_;
  MappedFile weights_;
  MappedFile text_;
  Library library_;
  std::unique_ptr<DeviceProgram> device_program_;  // nullptr: the program is for the CPU
  const forerun_linked* linked_ = nullptr;         // the app's programs, if it was opened with them
  int32_t linked_count_ = 0;
  std::string linked_target_;  // that was asked for; empty: any
  std::atomic<int32_t> holds_{1};
};

}  // namespace forerun

// The opaque type of the C interface.
struct forerun_bundle : forerun::Bundle {};

#endif
