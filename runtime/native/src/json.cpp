#include "json.h"

#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace forerun {
namespace {

constexpr int kMaxDepth = 32;

class Reader {
 public:
  Reader(const char* at, const char* end) : at_(at), end_(end) {}

  const char* at() const { return at_; }
  const std::string& reason() const { return reason_; }

  bool read_value(Json* value, int depth) {
    if (depth > kMaxDepth) return refuse("nested too deeply");
    at_ = skip_space(at_, end_);
    if (at_ == end_) return refuse("ends too early");
    switch (*at_) {
      case '{':
        return read_object(value, depth);
      case '[':
        return read_array(value, depth);
      case '"':
        value->kind = Json::kText;
        return read_text(&value->text);
      case 't':
        value->text = "true";
        return read_word("true", value, Json::kBoolean);
      case 'f':
        value->text = "false";
        return read_word("false", value, Json::kBoolean);
      case 'n':
        return read_word("null", value, Json::kNull);
      default:
        return read_number(value);
    }
  }

 private:
  bool refuse(const char* what) {
    if (reason_.empty()) reason_ = what;
    return false;
  }

  // Takes `character` if it comes next, white space skipped.
  bool take(char character) {
    at_ = skip_space(at_, end_);
    if (at_ == end_ || *at_ != character) return false;
    ++at_;
    return true;
  }

  bool read_word(const char* word, Json* value, Json::Kind kind) {
    const size_t length = std::strlen(word);
    if (static_cast<size_t>(end_ - at_) < length || std::memcmp(at_, word, length) != 0) {
      return refuse("holds an unknown word");
    }
    at_ += length;
    value->kind = kind;
    return true;
  }

  bool read_object(Json* value, int depth) {
    value->kind = Json::kObject;
    ++at_;
    if (take('}')) return true;
    do {
      at_ = skip_space(at_, end_);
      std::string key;
      if (at_ == end_ || *at_ != '"') return refuse("lacks a key");
      if (!read_text(&key)) return false;
      if (value->find(key.c_str()) != nullptr) return refuse("repeats a key");
      if (!take(':')) return refuse("lacks a colon");
      value->members.emplace_back(std::move(key), Json());
      if (!read_value(&value->members.back().second, depth + 1)) return false;
    } while (take(','));
    return take('}') || refuse("has an object that is not closed");
  }

  bool read_array(Json* value, int depth) {
    value->kind = Json::kArray;
    ++at_;
    if (take(']')) return true;
    do {
      value->items.emplace_back();
      if (!read_value(&value->items.back(), depth + 1)) return false;
    } while (take(','));
    return take(']') || refuse("has an array that is not closed");
  }

  bool read_text(std::string* text) {
    for (++at_; at_ < end_; ++at_) {
      const unsigned char character = static_cast<unsigned char>(*at_);
      if (character == '"') {
        ++at_;
        return true;
      }
      if (character < 0x20) return refuse("has a control character in a text");
      if (character != '\\') {
        text->push_back(*at_);
      } else if (!read_escape(text)) {
        return false;
      }
    }
    return refuse("has a text that is not closed");
  }

  // Leaves `at_` on the last character of the escape.
  bool read_escape(std::string* text) {
    static const char kNames[] = "\"\\/bfnrt";
    static const char kValues[] = "\"\\/\b\f\n\r\t";
    if (++at_ == end_) return refuse("ends in an escape");
    if (*at_ == 'u') return read_unicode(text);
    const char* found = static_cast<const char*>(std::memchr(kNames, *at_, sizeof kNames - 1));
    if (found == nullptr) return refuse("has an unknown escape");
    text->push_back(kValues[found - kNames]);
    return true;
  }

  bool read_hex(uint32_t* code) {
    *code = 0;
    for (int i = 0; i < 4; ++i) {
      if (++at_ >= end_) return refuse("ends in an escape");
      const char* digits = "0123456789abcdef";
      const char* found = std::strchr(digits, *at_ | 0x20);
      if (*at_ == '\0' || found == nullptr) return refuse("has a bad \\u escape");
      *code = *code * 16 + static_cast<uint32_t>(found - digits);
    }
    return true;
  }

  bool read_unicode(std::string* text) {
    uint32_t code = 0;
    if (!read_hex(&code)) return false;
    if (code >= 0xD800 && code < 0xDC00) {
      uint32_t low = 0;
      if (end_ - at_ < 3 || at_[1] != '\\' || at_[2] != 'u') return refuse("has half a surrogate pair");
      at_ += 2;
      if (!read_hex(&low)) return false;
      if (low < 0xDC00 || low > 0xDFFF) return refuse("has half a surrogate pair");
      code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    } else if (code >= 0xDC00 && code < 0xE000) {
      return refuse("has half a surrogate pair");
    }
    append_utf8(code, text);
    return true;
  }

  static void append_utf8(uint32_t code, std::string* text) {
    if (code < 0x80) {
      text->push_back(static_cast<char>(code));
      return;
    }
    const int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    const uint32_t lead = more == 1 ? 0xC0 : more == 2 ? 0xE0 : 0xF0;
    text->push_back(static_cast<char>(lead | (code >> (6 * more))));
    for (int i = more - 1; i >= 0; --i) {
      text->push_back(static_cast<char>(0x80 | ((code >> (6 * i)) & 0x3F)));
    }
  }

  bool take_digits() {
    const char* begin = at_;
    while (at_ < end_ && *at_ >= '0' && *at_ <= '9') ++at_;
    return at_ > begin;
  }

  bool read_number(Json* value) {
    const char* begin = at_;
    if (at_ < end_ && *at_ == '-') ++at_;
    const char* first = at_;
    if (!take_digits()) return refuse("holds something that is no value");
    if (*first == '0' && at_ - first > 1) return refuse("has a number with a leading zero");
    if (at_ < end_ && *at_ == '.') {
      ++at_;
      if (!take_digits()) return refuse("has a number without digits");
    }
    if (at_ < end_ && (*at_ | 0x20) == 'e') {
      ++at_;
      if (at_ < end_ && (*at_ == '+' || *at_ == '-')) ++at_;
      if (!take_digits()) return refuse("has a number without digits");
    }
    value->kind = Json::kNumber;
    value->text.assign(begin, at_);
    return true;
  }

  const char* at_;
  const char* end_;
  std::string reason_;
};

}  // namespace

const Json* Json::find(const char* name) const {
  for (const auto& member : members) {
    if (member.first == name) return &member.second;
  }
  return nullptr;
}

bool Json::to_integer(int64_t* value) const {
  if (kind != kNumber || text.find_first_of(".eE") != std::string::npos) return false;
  errno = 0;
  *value = std::strtoll(text.c_str(), nullptr, 10);
  return errno == 0;
}

const char* skip_space(const char* at, const char* end) {
  while (at < end && (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r')) ++at;
  return at;
}

bool read_json(const char** begin, const char* end, Json* value, std::string* reason) {
  Reader reader(*begin, end);
  if (!reader.read_value(value, 0)) {
    *reason = reader.reason();
    return false;
  }
  *begin = reader.at();
  return true;
}

}  // namespace forerun
