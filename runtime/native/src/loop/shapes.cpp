#include "shapes.h"

#include <algorithm>
#include <cmath>
#include <new>

namespace forerun {

int32_t Chain::select(int32_t, Offers* offers, const Tree&, int32_t* expanded) {
  *expanded = 1;
  return std::min(offers->count, 1);
}

namespace {

// Every row of level i - 1 gets branches[i - 1] children.
class FixedTree : public Shape {
 public:
  explicit FixedTree(const Numbers& branches) : branches_(branches) {}
  int32_t depth() const override { return branches_.count; }
  int32_t width(int32_t level) const override { return branches_.values[level - 1]; }

  // All first choices before all second ones, so that a limit drops the worst.
  int32_t select(int32_t, Offers* offers, const Tree&, int32_t* expanded) override {
    std::sort(offers->list, offers->list + offers->count, [](const Candidate& left, const Candidate& right) {
      return left.rank != right.rank ? left.rank < right.rank : left.order < right.order;
    });
    *expanded = offers->count;
    return offers->count;
  }

 private:
  Numbers branches_;
};

struct GrownOptions {
  int32_t rows = 16, tokens = 6, width = 4, beam = 4;
  double reach = 0.1;
};

// The likeliest paths, as many rows as fit.
class Grown : public Shape {
 public:
  explicit Grown(const GrownOptions& options) : options_(options) {}
  int32_t depth() const override { return options_.tokens; }
  int32_t width(int32_t) const override { return options_.width; }

  int32_t select(int32_t, Offers* offers, const Tree& tree, int32_t* expanded) override {
    const auto chance = [&](const Candidate& one) { return tree.reach[one.parent] * one.probability; };
    Candidate* const end =
        std::partition(offers->list, offers->list + offers->count,
                       [&](const Candidate& one) { return chance(one) >= options_.reach; });
    std::sort(offers->list, end, [&](const Candidate& left, const Candidate& right) {
      const double first = chance(left), second = chance(right);
      return first != second ? first > second : left.order < right.order;
    });
    *expanded = options_.beam;
    const int32_t room = std::max(options_.rows - (tree.count - 1), 0);
    return std::min(static_cast<int32_t>(end - offers->list), room);
  }

 private:
  GrownOptions options_;
};

// A chain with siblings beside the tokens that the draft is unsure of.
class Cape : public Shape {
 public:
  Cape(int32_t tokens, int32_t siblings) : tokens_(tokens), siblings_(siblings) {}
  int32_t depth() const override { return tokens_; }
  int32_t width(int32_t) const override { return 1 + std::min(siblings_, FORERUN_MOST_CHOICES); }

  int32_t select(int32_t, Offers* offers, const Tree&, int32_t* expanded) override {
    if (offers->count == 0) return 0;
    *expanded = 1;
    // Half to even, as Python rounds.
    const double siblings = std::nearbyint(siblings_ * (1 - offers->list[0].probability));
    return static_cast<int32_t>(std::min<double>(offers->count, 1 + siblings));
  }

 private:
  int32_t tokens_, siblings_;
};

template <typename Kind, typename... Arguments>
Status make(std::unique_ptr<Shape>* shape, const Arguments&... arguments) {
  shape->reset(new (std::nothrow) Kind(arguments...));
  return *shape ? FORERUN_OK : no_memory("a draft shape");
}

Status make_chain(Spec* spec, std::unique_ptr<Shape>* shape) {
  int32_t tokens = 4;
  FORERUN_TRY(spec->take("tokens", &tokens));
  FORERUN_TRY(spec->finish());
  if (tokens < 1) {
    return fail(FORERUN_INVALID_ARGUMENT, "shape 'chain': tokens is %d; it must be 1 or more", tokens);
  }
  return make<Chain>(shape, tokens);
}

Status make_tree(Spec* spec, std::unique_ptr<Shape>* shape) {
  Numbers branches{4, {2, 1, 1, 1}};
  FORERUN_TRY(spec->take("branches", &branches));
  FORERUN_TRY(spec->finish());
  const bool some = branches.count > 0;
  if (!some || *std::min_element(branches.values, branches.values + branches.count) < 1) {
    return fail(FORERUN_INVALID_ARGUMENT,
                "shape 'tree': every number of branches must be 1 or more, as in 3+2+1");
  }
  return make<FixedTree>(shape, branches);
}

Status make_grown(Spec* spec, std::unique_ptr<Shape>* shape) {
  GrownOptions options;
  FORERUN_TRY(spec->take("rows", &options.rows));
  FORERUN_TRY(spec->take("tokens", &options.tokens));
  FORERUN_TRY(spec->take("width", &options.width));
  FORERUN_TRY(spec->take("beam", &options.beam));
  FORERUN_TRY(spec->take("reach", &options.reach));
  FORERUN_TRY(spec->finish());
  if (std::min({options.rows, options.tokens, options.width, options.beam}) < 1) {
    return fail(FORERUN_INVALID_ARGUMENT,
                "shape 'grown': rows is %d, tokens %d, width %d, beam %d; all must be 1 or more",
                options.rows, options.tokens, options.width, options.beam);
  }
  if (!(options.reach >= 0 && options.reach <= 1)) {
    return fail(FORERUN_INVALID_ARGUMENT, "shape 'grown': reach is %g; it must be between 0 and 1",
                options.reach);
  }
  return make<Grown>(shape, options);
}

Status make_cape(Spec* spec, std::unique_ptr<Shape>* shape) {
  int32_t tokens = 4, siblings = 3;
  FORERUN_TRY(spec->take("tokens", &tokens));
  FORERUN_TRY(spec->take("siblings", &siblings));
  FORERUN_TRY(spec->finish());
  if (tokens < 1 || siblings < 0) {
    return fail(FORERUN_INVALID_ARGUMENT,
                "shape 'cape': tokens is %d and siblings %d; allowed: from 1 and from 0", tokens, siblings);
  }
  return make<Cape>(shape, tokens, siblings);
}

}  // namespace

Status no_memory(const char* what) {
  return fail(FORERUN_OUT_OF_MEMORY, "no memory for %s", what);
}

Status make_shape(const char* text, std::unique_ptr<Shape>* shape) {
  Spec spec;
  FORERUN_TRY(spec.parse("shape", text));
  if (spec.is("chain")) return make_chain(&spec, shape);
  if (spec.is("tree")) return make_tree(&spec, shape);
  if (spec.is("grown")) return make_grown(&spec, shape);
  if (spec.is("cape")) return make_cape(&spec, shape);
  return spec.unknown_name("chain, tree, grown, cape");
}

}  // namespace forerun
