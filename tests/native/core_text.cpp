// Text: every change of a small text.bin, memory that is refused, answers without a single allocation.
#include <cstdlib>
#include <memory>
#include <thread>

#include "small_text.h"
#include "text/chat.h"
#include "text/decoder.h"
#include "text/stops.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

extern "C" {
#include "core_test.h"
}

using forerun::Buffer;
using forerun::Bytes;
using forerun::TextFile;

namespace {

constexpr char kSample[] = "ab e\xCC\x81 <end> \t b\xE2\x82\xAC\xFF";
constexpr forerun_message kMessages[] = {{"user", " a ", 3}, {"assistant", "b", 1}, {"user", "\xC3\xA9", 2}};

// A copy of just its size, so that whoever reads beyond it is seen.
class Copy {
 public:
  explicit Copy(const std::string& bytes) : bytes_(bytes.size()) {
    data_ = static_cast<uint8_t*>(std::malloc(bytes_ + (bytes_ == 0)));
    CHECK(data_ != nullptr);
    std::memcpy(data_, bytes.data(), bytes_);
  }
  Copy(const Copy&) = delete;
  Copy& operator=(const Copy&) = delete;
  ~Copy() { std::free(data_); }
  forerun::Status open(TextFile* file) const { return file->open(data_, bytes_); }

 private:
  uint8_t* data_;
  size_t bytes_;
};

// Everything that reads a file.
void use(const TextFile& file) {
  Buffer<int32_t> ids;
  Buffer<char> run, text, prompt;
  forerun::Tokenizer tokenizer(file);
  if (tokenizer.encode(kSample, sizeof kSample - 1, &ids) != FORERUN_OK) return;
  CHECK(add_decoded(file, ids.data(), ids.count(), &run, &text));
  CHECK(forerun::is_sound(text.data(), text.data() + text.count()));
  add_prompt(file, kMessages, 3, &prompt);
}

void test_sound() {
  const Copy copy(small_text::make());
  TextFile file;
  CHECK(copy.open(&file) == FORERUN_OK);
  Buffer<int32_t> ids;
  forerun::Tokenizer tokenizer(file);
  CHECK(tokenizer.encode(kSample, sizeof kSample - 1, &ids) == FORERUN_OK);
  const int32_t first = small_text::kFirstByte;
  const int32_t wanted[] = {4,
                            3,
                            4,
                            6,
                            4,
                            0,
                            4,
                            4,
                            first + 9,
                            4,
                            2,
                            first + 0xE2,
                            first + 0x82,
                            first + 0xAC,
                            first + 0xEF,
                            first + 0xBF,
                            first + 0xBD};
  CHECK(ids.count() == sizeof wanted / sizeof wanted[0]);
  CHECK(std::memcmp(ids.data(), wanted, sizeof wanted) == 0);
  Buffer<char> run, text, prompt;
  CHECK(add_decoded(file, ids.data(), ids.count(), &run, &text));
  CHECK(std::string(text.data(), text.count()) == "ab \xC3\xA9   \t b\xE2\x82\xAC\xEF\xBF\xBD");
  CHECK(add_prompt(file, kMessages, 3, &prompt) == FORERUN_OK);
  CHECK(std::string(prompt.data(), prompt.count()) == "<u>a<a>b<u>\xC3\xA9<a>");
}

// Read by all that reads one, if it is opened at all.
void test_damage() {
  const std::string sound = small_text::make();
  for (size_t length = 0; length < sound.size(); ++length) {
    TextFile file;
    const Copy copy(sound.substr(0, length));
    CHECK(copy.open(&file) == FORERUN_TEXT);
  }
  int refused = 0, taken = 0;
  const auto attempt = [&](const std::string& bytes) {
    TextFile file;
    const Copy copy(bytes);
    if (copy.open(&file) != FORERUN_OK) {
      ++refused;
      return;
    }
    ++taken;
    use(file);
  };
  for (size_t at = 0; at < sound.size(); ++at) {
    for (const int mask : {0x01, 0x80, 0xFF}) {
      std::string damaged = sound;
      damaged[at] = static_cast<char>(damaged[at] ^ mask);
      attempt(damaged);
    }
  }
  uint64_t state = 11;
  for (int i = 0; i < 3000; ++i) {
    std::string damaged = sound;
    for (int32_t k = pick(&state, 4); k >= 0; --k) {
      damaged[static_cast<size_t>(pick(&state, static_cast<int32_t>(sound.size())))] =
          static_cast<char>(pick(&state, 3) ? pick(&state, 9) : pick(&state, 256));
    }
    attempt(damaged);
  }
  CHECK(refused > 1000 && taken > 1000);
}

// What a reader would step over, or never find: refused before anything is read.
void test_single_faults() {
  const std::string sound = small_text::make();
  const std::string strings = "\xE2\x96\x81 <end><u>";
  const auto refuses = [&](const std::string& changed) {
    std::string damaged = sound;
    const size_t at = damaged.find(strings);
    CHECK(at != std::string::npos && changed.size() == strings.size());
    damaged.replace(at, changed.size(), changed);
    TextFile file;
    const Copy copy(damaged);
    return copy.open(&file) == FORERUN_TEXT;
  };
  CHECK(!refuses(strings));
  CHECK(!refuses("\xE2\x96\x82 <end><u>"));
  CHECK(refuses("\xE2\x96\x41 <end><u>")); /* no UTF-8 */
  CHECK(refuses("\xE2\x96\x81\xE2<end><u>"));
  CHECK(refuses("\xE2\x96\x81 <zzz><u>")); /* behind the other added token, <t> */
}

void test_no_allocations() {
  const Copy copy(small_text::make());
  TextFile file;
  CHECK(copy.open(&file) == FORERUN_OK);
  const char* const stops[] = {"bbb", "ababab"};
  forerun::Detokenizer detokenizer(file);
  forerun::StopMatcher matcher;
  CHECK(matcher.open(stops, 2) && detokenizer.reserve());
  CHECK(matcher.reserve_all(detokenizer.most_bytes(forerun::Detokenizer::kWindow)));
  const long before = allocation_count();
  uint64_t state = 3;
  for (int i = 0; i < 20000; ++i) {
    Bytes piece, safe;
    // A character of four bytes, then letters.
    const int32_t face[] = {0xF0, 0x9F, 0x98, 0x80};
    const int32_t id =
        i % 8 < 4 ? static_cast<int32_t>(small_text::kFirstByte) + face[i % 4] : pick(&state, 7);
    CHECK(matcher.reserve(detokenizer.most_bytes()) && detokenizer.feed(id, &piece));
    CHECK(matcher.feed(piece, &safe));
    if (matcher.matched()) matcher.begin();
  }
  CHECK(allocation_count() == before);
}

// Refuses the first request for memory, then the second, and so on until a call needs no more.
template <typename Call>
void refuse_each(Call call) {
  for (long allowed = 0;; ++allowed) {
    CHECK(allowed < 10000);
    allow_allocations(allowed);
    const bool done = call();
    allow_allocations(-1);
    if (done) return;
  }
}

void test_refused_memory() {
  const Copy copy(small_text::make());
  TextFile file;
  CHECK(copy.open(&file) == FORERUN_OK);
  std::string text;
  for (int i = 0; i < 40; ++i) text += kSample;
  Buffer<int32_t> wanted;
  CHECK(forerun::Tokenizer(file).encode(text.data(), text.size(), &wanted) == FORERUN_OK);
  int refusals = 0;
  refuse_each([&] {
    Buffer<int32_t> ids;
    forerun::Tokenizer tokenizer(file);
    const forerun::Status status = tokenizer.encode(text.data(), text.size(), &ids);
    refusals += status != FORERUN_OK;
    CHECK(status == FORERUN_OK ? ids.count() == wanted.count() : status == FORERUN_OUT_OF_MEMORY);
    CHECK(status == FORERUN_OK || ids.count() == 0);
    return status == FORERUN_OK;
  });
  refuse_each([&] {
    Buffer<char> prompt;
    const forerun::Status status = add_prompt(file, kMessages, 3, &prompt);
    CHECK(status == FORERUN_OK || status == FORERUN_OUT_OF_MEMORY);
    return status == FORERUN_OK;
  });
  CHECK(refusals > 10);
}

// A token that was refused for want of memory can be fed again.
void test_refused_feed() {
  const Copy copy(small_text::make());
  TextFile file;
  CHECK(copy.open(&file) == FORERUN_OK);
  forerun::Detokenizer detokenizer(file), other(file);
  for (int i = 0; i < 100; ++i) {
    const int32_t id = static_cast<int32_t>(small_text::kFirstByte) + (i < 99 ? 0x80 : 'x');
    Bytes piece, wanted;
    CHECK(other.feed(id, &wanted));
    refuse_each([&] { return detokenizer.feed(id, &piece); });
    CHECK(std::string(piece.data, piece.size) == std::string(wanted.data, wanted.size));
  }
}

void encode_often(const forerun_text* text) {
  for (int i = 0; i < 200; ++i) {
    int32_t ids[32];
    size_t count = 0;
    CHECK(forerun_encode(text, kSample, sizeof kSample - 1, ids, 32, &count) == FORERUN_OK && count == 17);
  }
}

void test_interface(const char* folder) {
  forerun_bundle* bundle;
  forerun_text* text;
  CHECK(forerun_bundle_open(folder, nullptr, &bundle) == FORERUN_OK);
  CHECK(forerun_text_open(bundle, &text) == FORERUN_TEXT);
  forerun_bundle_release(bundle);
  const std::string file = small_text::make();
  add_text(folder, file.data(), file.size());
  CHECK(forerun_bundle_open(folder, nullptr, &bundle) == FORERUN_OK);
  CHECK(forerun_text_open(bundle, &text) == FORERUN_OK);
  forerun_bundle_release(bundle);

  int32_t ids[32] = {-1};
  size_t count = 0;
  CHECK(forerun_encode(text, kSample, sizeof kSample - 1, nullptr, 0, &count) == FORERUN_OK && count == 17);
  CHECK(forerun_encode(text, kSample, sizeof kSample - 1, ids, 16, &count) == FORERUN_INVALID_ARGUMENT);
  CHECK(count == 17 && ids[0] == -1);
  CHECK(forerun_encode(text, nullptr, 0, ids, 32, &count) == FORERUN_OK && count == 0);
  CHECK(forerun_encode(text, nullptr, 1, ids, 32, &count) == FORERUN_INVALID_ARGUMENT);
  char bytes[32];
  const int32_t letters[] = {1, 2, -5, 1000000};
  CHECK(forerun_decode(text, letters, 4, bytes, 32, &count) == FORERUN_OK && count == 2);
  CHECK(forerun_chat_prompt(text, kMessages, 3, bytes, 32, &count) == FORERUN_OK && count == 16);
  CHECK(forerun_chat_prompt(text, kMessages, 2, bytes, 32, &count) == FORERUN_INVALID_ARGUMENT);
  forerun_text_facts facts;
  CHECK(forerun_text_describe(text, &facts) == FORERUN_OK && facts.end_count == 1 && facts.end_ids[0] == 0);
  std::thread one(encode_often, text), two(encode_often, text);
  one.join();
  two.join();

  forerun_decoder* decoder;
  forerun_piece piece;
  const char* const stops[] = {"ba"};
  CHECK(forerun_decoder_create(text, stops, 1, &decoder) == FORERUN_OK);
  forerun_text_release(text);
  CHECK(forerun_decoder_feed(decoder, 2, &piece) == FORERUN_OK && piece.bytes == 0 && !piece.stopped);
  CHECK(forerun_decoder_feed(decoder, 1, &piece) == FORERUN_OK && piece.bytes == 0 && piece.stopped);
  CHECK(forerun_decoder_flush(decoder, &piece) == FORERUN_OK && piece.bytes == 0 && piece.stopped);
  CHECK(forerun_decoder_feed(decoder, 1, &piece) == FORERUN_OK && piece.bytes == 1 && !piece.stopped);
  forerun_decoder_release(decoder);
}

}  // namespace

extern "C" void test_shared_text(const char* folder) {
  test_interface(folder);
}

extern "C" void test_text(const char* folder) {
  test_sound();
  test_damage();
  test_single_faults();
  test_no_allocations();
  test_refused_memory();
  test_refused_feed();
  test_interface(folder);
}
