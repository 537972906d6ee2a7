#include "text/text.h"

#include "text/utf8.h"

namespace forerun {
namespace {

Status no_memory() {
  return fail(FORERUN_OUT_OF_MEMORY,
              "no memory for the text of an answer; end it or give fewer stop strings");
}

Status check_stops(const char* const* stops, int32_t count) {
  if (count < 0 || (count > 0 && stops == nullptr)) {
    return fail(FORERUN_INVALID_ARGUMENT, "stops is %s with %d texts; give an array, or NULL and 0",
                stops != nullptr ? "an array" : "NULL", count);
  }
  for (int32_t i = 0; i < count; ++i) {
    if (stops[i] == nullptr || stops[i][0] == 0) {
      return fail(FORERUN_INVALID_ARGUMENT, "stop string %d is %s; it must hold a character at least", i,
                  stops[i] != nullptr ? "empty" : "NULL");
    }
    const uint64_t size = std::strlen(stops[i]);
    if (size > UINT16_MAX || !is_sound(stops[i], stops[i] + size)) {
      return fail(FORERUN_INVALID_ARGUMENT, "stop string %d is no UTF-8, or longer than %d bytes", i,
                  UINT16_MAX);
    }
  }
  return FORERUN_OK;
}

}  // namespace

Status Text::open(Bundle* bundle) {
  if (bundle->text().bytes() == 0) {
    const bool is_known = !bundle->no_text().empty();
    return fail(FORERUN_TEXT, "the bundle has no text.bin: %s",
                is_known ? bundle->no_text().c_str() : "it was compiled without a tokenizer");
  }
  FORERUN_TRY(file_.open(bundle->text().data(), bundle->text().bytes()));
  bundle->hold();
  bundle_ = bundle;
  return FORERUN_OK;
}

Text::~Text() {
  if (bundle_ != nullptr) bundle_->release();
}

void Text::release() {
  if (holds_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete static_cast<forerun_text*>(this);
}

Status Decoder::open(const char* const* stops, int32_t count) {
  FORERUN_TRY(check_stops(stops, count));
  const bool opened = stops_.open(stops, static_cast<uint32_t>(count)) && detokenizer_.reserve() &&
                      stops_.reserve_all(detokenizer_.most_bytes(Detokenizer::kWindow));
  return opened ? FORERUN_OK : no_memory();
}

Status Decoder::feed(int32_t id, forerun_piece* piece) {
  Bytes fresh, safe;
  if (!stops_.reserve(detokenizer_.most_bytes()) || !detokenizer_.feed(id, &fresh)) return no_memory();
  if (!stops_.feed(fresh, &safe)) return no_memory();
  *piece = {safe.data, safe.size, stops_.matched()};
  return FORERUN_OK;
}

Status Decoder::flush(forerun_piece* piece) {
  Bytes fresh, safe;
  if (!stops_.reserve(detokenizer_.most_bytes()) || !detokenizer_.flush(&fresh)) return no_memory();
  if (!stops_.flush(fresh, &safe)) return no_memory();
  *piece = {safe.data, safe.size, stops_.matched()};
  stops_.begin();
  return FORERUN_OK;
}

}  // namespace forerun
