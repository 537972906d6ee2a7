#include "generator.h"

#include <new>

#include "answer.h"
#include "shapes.h"

namespace forerun {

Status Generator::create(Session* used) {
  session = used;
  const size_t drafts = session->bundle->drafts().size();
  offers.reset(new (std::nothrow) Offers);
  networks_.reset(new (std::nothrow) std::unique_ptr<DraftNetwork>[drafts + 1]);
  answers_.reset(new (std::nothrow) Place[static_cast<size_t>(session->options.sequences)]);
  return offers && networks_ && answers_ ? FORERUN_OK : no_memory("a generator");
}

const ListedDraft* Generator::find_draft(const char* name) const {
  for (const ListedDraft& listed : session->bundle->drafts()) {
    if (listed.name == name) return &listed;
  }
  return nullptr;
}

Status Generator::open_draft(const char* name, DraftNetwork** network) {
  const ListedDraft* const listed = find_draft(name);
  if (listed == nullptr) {
    std::string has;
    for (const ListedDraft& other : session->bundle->drafts()) has += (has.empty() ? "" : ", ") + other.name;
    return fail(FORERUN_INVALID_ARGUMENT,
                "this bundle has no draft '%s'; it has %s (forerun compile --draft adds them)", name,
                has.empty() ? "none" : has.c_str());
  }
  std::unique_ptr<DraftNetwork>& place = networks_[listed - session->bundle->drafts().data()];
  if (!place) {
    std::unique_ptr<DraftNetwork> opened(new (std::nothrow) DraftNetwork);
    if (!opened) return no_memory("a draft network");
    FORERUN_TRY(opened->open(*session, *listed));
    place = std::move(opened);
  }
  *network = place.get();
  return FORERUN_OK;
}

Status Generator::know_costs(int32_t sequence, int32_t token_id) {
  if (planner.costs.known()) return FORERUN_OK;
  forerun_costs costs{};
  FORERUN_TRY(measure_costs(*session, sequence, token_id, &costs));
  return set_costs(costs);
}

Status Generator::tune(int32_t sequence, forerun_costs* costs) {
  Sequence* target = nullptr;
  FORERUN_TRY(find_sequence(*session, sequence, &target));
  if (target->staged > 0) {
    return fail(FORERUN_INVALID_ARGUMENT, "sequence %d has %d staged rows; commit or drop them first",
                sequence, target->staged);
  }
  *costs = {};
  FORERUN_TRY(measure_costs(*session, sequence, 0, costs));
  return set_costs(*costs);
}

Status Generator::set_costs(const forerun_costs& costs) {
  FORERUN_TRY(planner.costs.set(costs));
  measured_ = costs;
  return FORERUN_OK;
}

// ---- answers ----

Status Generator::start(int32_t sequence, const int32_t* prompt, int32_t count,
                        const forerun_generation& wanted) {
  Sequence* target = nullptr;
  FORERUN_TRY(find_sequence(*session, sequence, &target));
  Answer* answer = answer_in(sequence);
  if (answer == nullptr) {
    std::unique_ptr<Answer> made(new (std::nothrow) Answer(this, sequence));
    if (!made) return no_memory("an answer");
    FORERUN_TRY(made->reserve());
    answer = made.release();
    answers_[static_cast<size_t>(sequence)].answer.store(answer, std::memory_order_release);
  }
  return answer->start(prompt, count, wanted);
}

Answer* Generator::answer_in(int32_t sequence) const {
  const bool sound = sequence >= 0 && sequence < session->options.sequences;
  return sound ? answers_[static_cast<size_t>(sequence)].answer.load(std::memory_order_acquire) : nullptr;
}

Status Generator::find(int32_t sequence, Answer** answer) const {
  *answer = answer_in(sequence);
  if (*answer != nullptr) return FORERUN_OK;
  return fail(FORERUN_INVALID_ARGUMENT, "no answer was started in sequence %d", sequence);
}

}  // namespace forerun
