// Any bytes as the manifest of a bundle with weights, a text and a program, vouched for by its first line.
#include "support.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  static const std::string sound = fuzz::sound_manifest();
  forerun_bundle* bundle = nullptr;
  // Nothing at all stands for the sound one.
  fuzz::write_manifest(bytes > 0 ? std::string(reinterpret_cast<const char*>(data), bytes) : sound);
  const int status = fuzz::open_bundle(&bundle);
  CHECK((status == FORERUN_OK) == (bundle != nullptr));
  CHECK(bytes > 0 || status == FORERUN_OK);
  if (status != FORERUN_OK) return 0;
  forerun_model model;
  forerun_text* text = nullptr;
  CHECK(forerun_bundle_model(bundle, &model) == FORERUN_OK && model.layers == 3);
  forerun_text_open(bundle, &text);
  forerun_text_release(text);
  forerun_bundle_release(bundle);
  return 0;
}
