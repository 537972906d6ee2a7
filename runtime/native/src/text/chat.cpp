#include "text/chat.h"

#include <algorithm>
#include <cstring>

#include "text/utf8.h"

namespace forerun {
namespace {

constexpr const char* kRoleNames[kRoles] = {"system", "user", "assistant"};
constexpr uint32_t kLeft = 1, kRight = 2;

Status no_memory() {
  return fail(FORERUN_OUT_OF_MEMORY, "no memory for the prompt; give fewer or shorter messages");
}

Status find_role(const forerun_message* messages, int32_t index, uint32_t* role) {
  const char* name = messages[index].role;
  for (*role = 0; name != nullptr && *role < kRoles; ++*role) {
    if (std::strcmp(name, kRoleNames[*role]) == 0) return FORERUN_OK;
  }
  return fail(FORERUN_INVALID_ARGUMENT,
              "message %d has the role %s%s%s; it must be \"system\", \"user\" or \"assistant\"", index,
              name != nullptr ? "\"" : "", name != nullptr ? name : "NULL", name != nullptr ? "\"" : "");
}

const char* left_of(const TextFile& file, const char* at, const char* end) {
  while (at < end) {
    const char* next = at;
    if (!file.class_has(file.settings.chat_spaces, next_point(&next))) break;
    at = next;
  }
  return at;
}

const char* right_of(const TextFile& file, const char* at, const char* end) {
  while (end > at) {
    const char *before = previous_point(end), *point = before;
    if (!file.class_has(file.settings.chat_spaces, next_point(&point))) break;
    end = before;
  }
  return end;
}

Status check_content(const TextFile& file, uint32_t role, int32_t index, const char* at, const char* end) {
  for (const Refused& refused : file.refused) {
    if (refused.role != role) continue;
    const Bytes text = file.string(refused.text);
    if (std::search(at, end, text.data, text.data + text.size) == end) continue;
    return fail(
        FORERUN_INVALID_ARGUMENT,
        "message %d of the %s holds \"%.*s\", which the model's chat template treats specially; write "
        "this prompt with the template itself, from Python",
        index, kRoleNames[role], static_cast<int>(text.size), text.data);
  }
  return FORERUN_OK;
}

bool add_string(const TextFile& file, uint32_t number, Buffer<char>* prompt) {
  const Bytes text = file.string(number);
  return prompt->add_all(text.data, text.size);
}

Status add_message(const TextFile& file, const forerun_message& message, uint32_t role, int32_t index,
                   Buffer<char>* prompt) {
  if (message.content == nullptr && message.bytes > 0) {
    return fail(FORERUN_INVALID_ARGUMENT, "message %d has the content NULL of %zu bytes", index,
                message.bytes);
  }
  Buffer<char> sound;
  if (!add_sound(&sound, message.content, message.bytes)) return no_memory();
  const char *at = sound.data(), *end = at + sound.count();
  FORERUN_TRY(check_content(file, role, index, at, end));
  const uint32_t strips = file.chat[0].strips[role];
  if (strips & kLeft) at = left_of(file, at, end);
  if (strips & kRight) end = right_of(file, at, end);
  return prompt->add_all(at, static_cast<uint64_t>(end - at)) ? FORERUN_OK : no_memory();
}

}  // namespace

Status add_prompt(const TextFile& file, const forerun_message* messages, int32_t count,
                  Buffer<char>* prompt) {
  if (file.chat.count == 0) {
    const Bytes reason = file.string(file.settings.chat_refusal);
    return fail(FORERUN_TEXT, "the core cannot write chat prompts for this model: %.*s",
                static_cast<int>(reason.size), reason.data);
  }
  if (count < 1) {
    return fail(FORERUN_INVALID_ARGUMENT, "a conversation cannot have %d messages; give at least one", count);
  }
  const ChatTable& table = file.chat[0];
  uint32_t before = 0, role = 0;
  for (int32_t i = 0; i < count; ++i, before = role + 1) {
    FORERUN_TRY(find_role(messages, i, &role));
    if (table.joints[before][role] == kNone) {
      return fail(
          FORERUN_INVALID_ARGUMENT,
          "message %d is of the %s, which this model's chat template does not allow %s%s; a question of "
          "the user comes first, then answers and questions in turn",
          i, kRoleNames[role], before == 0 ? "at the beginning" : "after one of the ",
          before == 0 ? "" : kRoleNames[before - 1]);
    }
    if (!add_string(file, table.joints[before][role], prompt)) return no_memory();
    FORERUN_TRY(add_message(file, messages[i], role, i, prompt));
  }
  if (table.ends[role] == kNone) {
    return fail(
        FORERUN_INVALID_ARGUMENT,
        "the last message is of the %s, which this model's chat template does not allow; end with one "
        "of the user",
        kRoleNames[role]);
  }
  return add_string(file, table.ends[role], prompt) ? FORERUN_OK : no_memory();
}

}  // namespace forerun
