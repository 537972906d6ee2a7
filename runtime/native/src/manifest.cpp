#include "manifest.h"

#include <cinttypes>
#include <cstdlib>
#include <cstring>

#include "hash.h"
#include "json.h"

namespace forerun {
namespace {

constexpr int64_t kVersion = 3;
constexpr char kFormat[] = "{\"format\": \"forerun-bundle\", \"version\": ";
constexpr char kHash[] = ", \"xxh64\": \"";
constexpr char kEnd[] = "\", \"manifest\":";

Status malformed(const char* what) {
  return fail(FORERUN_MANIFEST, "manifest.json %s; it is not a forerun bundle, or damaged: compile it again",
              what);
}

bool take(const char** at, const char* end, const char* text) {
  const size_t length = std::strlen(text);
  if (static_cast<size_t>(end - *at) < length || std::memcmp(*at, text, length) != 0) return false;
  *at += length;
  return true;
}

bool parse_hash(const char* text, size_t length, uint64_t* hash) {
  if (length != 16) return false;
  *hash = 0;
  for (size_t i = 0; i < 16; ++i) {
    const char* digits = "0123456789abcdef";
    const char* found = static_cast<const char*>(std::memchr(digits, text[i], 16));
    if (found == nullptr) return false;
    *hash = *hash * 16 + static_cast<uint64_t>(found - digits);
  }
  return true;
}

// The first line holds what must be known before the rest can be trusted: format, version and hash.
Status read_header(const char** at, const char* end, uint64_t* written) {
  if (!take(at, end, kFormat)) return malformed("does not begin as one");
  int64_t version = 0;
  while (*at < end && **at >= '0' && **at <= '9' && version < 1000000)
    version = version * 10 + (*(*at)++ - '0');
  if (version != kVersion) {
    return fail(FORERUN_VERSION,
                "the bundle has format version %" PRId64 ", this forerun reads version %" PRId64
                "; compile the model again with this version",
                version, kVersion);
  }
  uint64_t& hash = *written;
  if (!take(at, end, kHash)) return malformed("has no hash");
  if (end - *at < 16 || !parse_hash(*at, 16, &hash)) return malformed("has a hash that is not 16 hex digits");
  *at += 16;
  if (!take(at, end, kEnd) || *at == end || **at != '\n') return malformed("has a broken first line");
  ++*at;
  if (hash64(*at, static_cast<size_t>(end - *at), 0) != hash) {
    return fail(FORERUN_HASH,
                "manifest.json was changed or cut off after it was written; compile the bundle again");
  }
  return FORERUN_OK;
}

Status read_text(const Json& object, const char* name, std::string* text) {
  const Json* found = object.find(name);
  if (found == nullptr || found->kind != Json::kText || found->text.empty()) {
    return fail(FORERUN_MANIFEST, "manifest.json lacks the text \"%s\"; compile the bundle again", name);
  }
  *text = found->text;
  return FORERUN_OK;
}

Status read_size(const Json& object, const char* name, int64_t* value) {
  const Json* found = object.find(name);
  if (found == nullptr || !found->to_integer(value) || *value < 0) {
    return fail(FORERUN_MANIFEST, "manifest.json lacks the number \"%s\"; compile the bundle again", name);
  }
  return FORERUN_OK;
}

Status read_section(const Json& root, const char* name, const Json** section) {
  *section = root.find(name);
  if (*section == nullptr || (*section)->kind != Json::kObject) {
    return fail(FORERUN_MANIFEST, "manifest.json lacks the section \"%s\"; compile the bundle again", name);
  }
  return FORERUN_OK;
}

Status read_config(const Json& root, Manifest* manifest) {
  const Json* config = nullptr;
  FORERUN_TRY(read_section(root, "config", &config));
  FORERUN_TRY(read_size(*config, "layers", &manifest->layers));
  FORERUN_TRY(read_size(*config, "hidden_size", &manifest->hidden_size));
  FORERUN_TRY(read_size(*config, "vocabulary_size", &manifest->vocabulary_size));
  return read_size(*config, "context_length", &manifest->context_length);
}

Status read_targets(const Json& root, Manifest* manifest) {
  const Json* section = nullptr;
  FORERUN_TRY(read_section(root, "targets", &section));
  for (const auto& member : section->members) {
    ListedTarget target;
    target.name = member.first;
    // Without a library the target's program is part of the app.
    if (member.second.find("library") != nullptr) {
      FORERUN_TRY(read_text(member.second, "library", &target.library));
    }
    FORERUN_TRY(read_text(member.second, "symbol", &target.symbol));
    FORERUN_TRY(read_text(member.second, "arch", &target.architecture));
    const Json* features = member.second.find("features");
    if (features == nullptr || features->kind != Json::kArray)
      return malformed("has a target without features");
    for (const Json& feature : features->items) {
      if (feature.kind != Json::kText) return malformed("has a feature that is no text");
      target.features.push_back(feature.text);
    }
    manifest->targets.push_back(std::move(target));
  }
  return manifest->targets.empty() ? malformed("lists no target") : FORERUN_OK;
}

Status read_files(const Json& root, Manifest* manifest) {
  const Json* section = nullptr;
  FORERUN_TRY(read_section(root, "files", &section));
  for (const auto& member : section->members) {
    ListedFile file{member.first, 0, 0};
    int64_t bytes = 0;
    std::string hash;
    FORERUN_TRY(read_size(member.second, "bytes", &bytes));
    FORERUN_TRY(read_text(member.second, "xxh64", &hash));
    file.bytes = static_cast<uint64_t>(bytes);
    if (!parse_hash(hash.data(), hash.size(), &file.hash))
      return malformed("has a hash that is not 16 hex digits");
    manifest->files.push_back(std::move(file));
  }
  return FORERUN_OK;
}

Status read_taps(const Json& entry, ListedDraft* draft) {
  const Json* taps = entry.find("taps");
  if (taps == nullptr || taps->kind != Json::kArray || taps->items.size() > ListedDraft::kMostTaps) {
    return malformed("has a draft without taps, or with too many");
  }
  int64_t before = -1, tap = 0;
  for (const Json& item : taps->items) {
    if (!item.to_integer(&tap) || tap <= before || tap > INT32_MAX) {
      return malformed("has a draft whose taps do not ascend");
    }
    draft->taps[draft->tap_count++] = static_cast<int32_t>(tap);
    before = tap;
  }
  return FORERUN_OK;
}

// Drafts are optional.
Status read_drafts(const Json& root, Manifest* manifest) {
  const Json* section = root.find("drafts");
  if (section == nullptr) return FORERUN_OK;
  for (const auto& member : section->members) {
    ListedDraft draft{};
    int64_t heads = 0;
    draft.name = member.first;
    FORERUN_TRY(read_text(member.second, "path", &draft.path));
    FORERUN_TRY(read_text(member.second, "component", &draft.component));
    FORERUN_TRY(read_size(member.second, "heads", &heads));
    if (heads < 1 || heads > INT32_MAX) return malformed("has a draft without heads");
    draft.heads = static_cast<int32_t>(heads);
    FORERUN_TRY(read_taps(member.second, &draft));
    manifest->drafts.push_back(std::move(draft));
  }
  return FORERUN_OK;
}

}  // namespace

Status read_manifest(const char* text, size_t bytes, Manifest* manifest) {
  const char* at = text;
  const char* end = text + bytes;
  FORERUN_TRY(read_header(&at, end, &manifest->hash));
  Json root;
  std::string reason;
  if (!read_json(&at, end, &root, &reason)) return malformed(reason.c_str());
  at = skip_space(at, end);
  if (at == end || *at != '}' || skip_space(at + 1, end) != end) return malformed("does not end as one");
  FORERUN_TRY(read_config(root, manifest));
  FORERUN_TRY(read_targets(root, manifest));
  FORERUN_TRY(read_drafts(root, manifest));
  if (root.find("no_text") != nullptr) FORERUN_TRY(read_text(root, "no_text", &manifest->no_text));
  return read_files(root, manifest);
}

}  // namespace forerun
