#include "spec.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace forerun {
namespace {

bool is_space(char letter) {
  return letter == ' ' || letter == '\t' || letter == '\n' || letter == '\r';
}

// The text without white space at its ends, cut in place.
char* trim(char* text) {
  while (is_space(*text)) ++text;
  size_t size = std::strlen(text);
  while (size > 0 && is_space(text[size - 1])) text[--size] = 0;
  return text;
}

// Cuts the text at the first `separator` and returns what follows it, nullptr if there is none.
char* split(char* text, char separator) {
  char* const found = std::strchr(text, separator);
  if (found == nullptr) return nullptr;
  *found = 0;
  return found + 1;
}

bool read_whole(const char* text, int32_t* value) {
  char* end = nullptr;
  errno = 0;
  const long long number = std::strtoll(text, &end, 10);
  if (end == text || *end != 0 || errno != 0 || number < INT32_MIN || number > INT32_MAX) return false;
  *value = static_cast<int32_t>(number);
  return true;
}

}  // namespace

Status Spec::parse(const char* kind, const char* text) {
  kind_ = kind;
  name_ = "";
  count_ = 0;
  allowed_[0] = 0;
  if (std::strlen(text) >= sizeof text_) {
    return fail(FORERUN_INVALID_ARGUMENT, "a %s's spec has %zu bytes; at most %zu are read", kind,
                std::strlen(text), sizeof text_ - 1);
  }
  std::strcpy(text_, text);
  char* rest = split(text_, ':');
  name_ = trim(text_);
  while (rest != nullptr) {
    char* item = rest;
    rest = split(item, ',');
    item = trim(item);
    if (*item == 0) continue;
    char* const value = split(item, '=');
    if (value == nullptr) {
      return fail(FORERUN_INVALID_ARGUMENT, "%s '%s': '%s' is not key=value", kind_, name_, item);
    }
    item = trim(item);
    if (find(item) != nullptr) {
      return fail(FORERUN_INVALID_ARGUMENT, "%s '%s': option '%s' is given twice", kind_, name_, item);
    }
    if (count_ == kMostOptions) {
      return fail(FORERUN_INVALID_ARGUMENT, "%s '%s' has more than %d options", kind_, name_, kMostOptions);
    }
    options_[count_++] = {item, trim(value), false};
  }
  return FORERUN_OK;
}

bool Spec::is(const char* name) const {
  return std::strcmp(name_, name) == 0;
}

Spec::Option* Spec::find(const char* option) {
  for (int32_t i = 0; i < count_; ++i) {
    if (std::strcmp(options_[i].name, option) == 0) return &options_[i];
  }
  return nullptr;
}

Status Spec::wrong(const Option& option, const char* meaning) const {
  return fail(FORERUN_INVALID_ARGUMENT, "%s '%s': %s='%s' is not %s", kind_, name_, option.name, option.value,
              meaning);
}

Status Spec::take(const char* option, const char** value) {
  const size_t used = std::strlen(allowed_);
  std::snprintf(allowed_ + used, sizeof allowed_ - used, "%s%s", used > 0 ? ", " : "", option);
  Option* const found = find(option);
  if (found == nullptr) return FORERUN_OK;
  found->taken = true;
  *value = found->value;
  return FORERUN_OK;
}

Status Spec::take(const char* option, int32_t* value) {
  const char* text = nullptr;
  FORERUN_TRY(take(option, &text));
  if (text == nullptr || read_whole(text, value)) return FORERUN_OK;
  return wrong(*find(option), "a whole number");
}

Status Spec::take(const char* option, double* value) {
  const char* text = nullptr;
  FORERUN_TRY(take(option, &text));
  if (text == nullptr) return FORERUN_OK;
  char* end = nullptr;
  const double number = std::strtod(text, &end);
  if (end == text || *end != 0) return wrong(*find(option), "a number");
  *value = number;
  return FORERUN_OK;
}

Status Spec::take(const char* option, Numbers* value) {
  const char* text = nullptr;
  FORERUN_TRY(take(option, &text));
  if (text == nullptr) return FORERUN_OK;
  char copy[kMostBytes];
  std::strcpy(copy, text);
  value->count = 0;
  for (char* part = copy; part != nullptr && *text != 0;) {
    char* const rest = split(part, '+');
    if (value->count == Numbers::kMost || !read_whole(part, &value->values[value->count])) {
      return wrong(*find(option), "a list of whole numbers such as 3+7+9");
    }
    ++value->count;
    part = rest;
  }
  return FORERUN_OK;
}

Status Spec::finish() {
  for (int32_t i = 0; i < count_; ++i) {
    if (options_[i].taken) continue;
    return fail(FORERUN_INVALID_ARGUMENT, "%s '%s' has no option '%s'; %s%s", kind_, name_, options_[i].name,
                allowed_[0] != 0 ? "options: " : "it has no options", allowed_);
  }
  return FORERUN_OK;
}

Status Spec::unknown_name(const char* known) const {
  return fail(FORERUN_INVALID_ARGUMENT, "unknown %s '%s'; known: %s", kind_, name_, known);
}

}  // namespace forerun
