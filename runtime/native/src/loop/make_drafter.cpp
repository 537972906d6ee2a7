#include "make_drafter.h"

#include <cstring>
#include <new>

#include "auto_drafter.h"
#include "lookup.h"
#include "network_drafters.h"
#include "self_drafter.h"
#include "shapes.h"
#include "spec.h"

namespace forerun {
namespace {

// Plain decoding: nothing is proposed.
class NoDrafter : public Drafter {
 public:
  Status begin(const Beginning&) override { return FORERUN_OK; }
  Status propose(const Context& context, Draft* draft) override {
    draft->tree.start(context.root());
    return FORERUN_OK;
  }
};

template <typename Kind>
Status keep(Kind* made, std::unique_ptr<Drafter>* drafter) {
  drafter->reset(made);
  return made != nullptr ? FORERUN_OK : no_memory("a drafter");
}

Status check_chain(const Spec& spec, double threshold, int32_t tokens) {
  if (!(threshold >= 0 && threshold <= 1)) {
    return fail(FORERUN_INVALID_ARGUMENT, "drafter '%s': threshold is %g; it must be between 0 and 1",
                spec.name(), threshold);
  }
  if (tokens < 1) {
    return fail(FORERUN_INVALID_ARGUMENT, "drafter '%s': tokens is %d; it must be 1 or more", spec.name(),
                tokens);
  }
  return FORERUN_OK;
}

// The shape that was given, or else a chain of so many tokens.
Status choose_shape(const char* text, int32_t tokens, std::unique_ptr<Shape>* shape) {
  if (text != nullptr) return make_shape(text, shape);
  shape->reset(new (std::nothrow) Chain(tokens));
  return *shape ? FORERUN_OK : no_memory("a draft shape");
}

Status make_auto(Spec* spec, std::unique_ptr<Drafter>* drafter) {
  const char* network = "";
  FORERUN_TRY(spec->take("network", &network));
  FORERUN_TRY(spec->finish());
  int32_t wanted = Auto::kFirstFound;
  if (*network != 0) wanted = std::strcmp(network, "none") == 0 ? Auto::kNoNetwork : Auto::kind_of(network);
  if (wanted == -3) {
    return fail(FORERUN_INVALID_ARGUMENT,
                "drafter 'auto': network is '%s'; it is none or one of feature, exit, heads", network);
  }
  return keep(new (std::nothrow) Auto(wanted), drafter);
}

Status make_lookup(Spec* spec, const char* shape, std::unique_ptr<Drafter>* drafter) {
  LookupOptions options;
  FORERUN_TRY(spec->take("max_ngram", &options.max_ngram));
  FORERUN_TRY(spec->take("min_ngram", &options.min_ngram));
  FORERUN_TRY(spec->take("tokens", &options.tokens));
  FORERUN_TRY(spec->take("branches", &options.branches));
  FORERUN_TRY(spec->finish());
  if (options.min_ngram < 1 || options.max_ngram < options.min_ngram) {
    return fail(
        FORERUN_INVALID_ARGUMENT,
        "drafter 'lookup': min_ngram is %d and max_ngram %d; they must be 1 or more, and min_ngram at "
        "most max_ngram",
        options.min_ngram, options.max_ngram);
  }
  if (options.tokens < 1 || options.branches < 1) {
    return fail(FORERUN_INVALID_ARGUMENT,
                "drafter 'lookup': tokens is %d and branches %d; both must be 1 or more", options.tokens,
                options.branches);
  }
  std::unique_ptr<Shape> chosen;
  if (shape != nullptr) FORERUN_TRY(make_shape(shape, &chosen));
  return keep(new (std::nothrow) Lookup(options, std::move(chosen)), drafter);
}

Status make_self(Spec* spec, const char* shape, std::unique_ptr<Drafter>* drafter) {
  SelfOptions options;
  int32_t tokens = 3;
  const char* layers = "none";
  FORERUN_TRY(spec->take("layers", &layers));
  if (std::strcmp(layers, "none") != 0) FORERUN_TRY(spec->take("layers", &options.layers));
  FORERUN_TRY(spec->take("skip", &options.skip));
  FORERUN_TRY(spec->take("tokens", &tokens));
  FORERUN_TRY(spec->take("threshold", &options.threshold));
  FORERUN_TRY(spec->finish());
  FORERUN_TRY(check_chain(*spec, options.threshold, tokens));
  if (options.layers != kDefaultLayers && *options.skip != 0) {
    return fail(FORERUN_INVALID_ARGUMENT, "drafter 'self': give layers or skip, not both");
  }
  std::unique_ptr<Shape> chosen;
  FORERUN_TRY(choose_shape(shape, tokens, &chosen));
  auto* const made = new (std::nothrow) SelfDrafter(options, std::move(chosen));
  FORERUN_TRY(keep(made, drafter));
  return made->skip(options.skip);
}

template <typename Kind>
Status make_chained(Spec* spec, double threshold, const char* shape, std::unique_ptr<Drafter>* drafter) {
  int32_t tokens = 4;
  FORERUN_TRY(spec->take("tokens", &tokens));
  FORERUN_TRY(spec->take("threshold", &threshold));
  FORERUN_TRY(spec->finish());
  FORERUN_TRY(check_chain(*spec, threshold, tokens));
  std::unique_ptr<Shape> chosen;
  FORERUN_TRY(choose_shape(shape, tokens, &chosen));
  return keep(new (std::nothrow) Kind(threshold, std::move(chosen)), drafter);
}

Status make_heads(Spec* spec, const char* shape, std::unique_ptr<Drafter>* drafter) {
  double threshold = 0;
  FORERUN_TRY(spec->take("threshold", &threshold));
  FORERUN_TRY(spec->finish());
  FORERUN_TRY(check_chain(*spec, threshold, 1));
  std::unique_ptr<Shape> chosen;
  if (shape != nullptr) FORERUN_TRY(make_shape(shape, &chosen));
  return keep(new (std::nothrow) HeadsDrafter(threshold, std::move(chosen)), drafter);
}

}  // namespace

Status make_drafter(const char* text, const char* shape, std::unique_ptr<Drafter>* drafter) {
  Spec spec;
  FORERUN_TRY(spec.parse("drafter", text));
  const bool shapeless = spec.is("auto") || spec.is("none");
  if (shapeless && shape != nullptr) {
    return fail(FORERUN_INVALID_ARGUMENT, "drafter '%s' drafts in no shape; leave the shape out",
                spec.name());
  }
  if (spec.is("auto")) return make_auto(&spec, drafter);
  if (spec.is("none")) {
    FORERUN_TRY(spec.finish());
    return keep(new (std::nothrow) NoDrafter, drafter);
  }
  if (spec.is("lookup")) return make_lookup(&spec, shape, drafter);
  if (spec.is("self")) return make_self(&spec, shape, drafter);
  if (spec.is("feature")) return make_chained<FeatureDrafter>(&spec, 0.0, shape, drafter);
  if (spec.is("heads")) return make_heads(&spec, shape, drafter);
  if (spec.is("exit")) return make_chained<ExitDrafter>(&spec, 0.4, shape, drafter);
  return spec.unknown_name("auto, none, lookup, self, feature, heads, exit");
}

}  // namespace forerun
