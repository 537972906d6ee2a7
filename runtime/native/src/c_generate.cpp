// The part of the C interface that generates.

#include <algorithm>
#include <new>

#include "loop/answer.h"
#include "loop/generator.h"
#include "loop/shapes.h"
#include "visit.h"

using forerun::Answer;
using forerun::require;
using forerun::Visit;

static_assert(FORERUN_MOST_DRAWN == forerun::kMostRows, "a call draws at most one token for each row");

namespace {

// How many of the tokens drawn an answer takes: up to the first end token, and no more than were asked for.
int32_t count_taken(const forerun::Answer& answer, const int32_t* token_ids, int32_t drawn,
                    forerun_finish* finish) {
  for (int32_t i = 0; i < drawn; ++i) {
    if (answer.is_end(token_ids[i])) {
      *finish = FORERUN_FINISH_STOP;
      return i + 1;
    }
    if (i + 1 == answer.remaining()) {
      *finish = FORERUN_FINISH_LENGTH;
      return i + 1;
    }
  }
  return drawn;
}

}  // namespace

extern "C" {

int forerun_generator_create(forerun_session* session, forerun_generator** generator) {
  const Visit visit(session);
  FORERUN_TRY(visit.status());
  FORERUN_TRY(require(generator, "generator"));
  *generator = nullptr;
  forerun_generator* const created = new (std::nothrow) forerun_generator;
  if (created == nullptr) return forerun::no_memory("a generator");
  const forerun::Status status = created->create(session);
  if (status != FORERUN_OK) {
    delete created;
    return status;
  }
  *generator = created;
  return FORERUN_OK;
}

void forerun_generator_release(forerun_generator* generator) {
  delete generator;
}

int forerun_generate_start(forerun_generator* generator, int32_t sequence, const int32_t* token_ids,
                           int32_t count, const forerun_generation* wanted) {
  FORERUN_TRY(require(generator, "generator"));
  const Visit visit(static_cast<forerun_session*>(generator->session));
  FORERUN_TRY(visit.status());
  FORERUN_TRY(require(token_ids, "token_ids"));
  FORERUN_TRY(require(wanted, "wanted"));
  return generator->start(sequence, token_ids, count, *wanted);
}

int forerun_generate_next(forerun_generator* generator, int32_t sequence, int32_t* token_ids, int32_t* count,
                          forerun_finish* finish) {
  FORERUN_TRY(require(generator, "generator"));
  const Visit visit(static_cast<forerun_session*>(generator->session));
  FORERUN_TRY(visit.status());
  FORERUN_TRY(require(token_ids, "token_ids"));
  FORERUN_TRY(require(count, "count"));
  FORERUN_TRY(require(finish, "finish"));
  Answer* answer = nullptr;
  FORERUN_TRY(generator->find(sequence, &answer));
  FORERUN_TRY(answer->next(token_ids, count));
  *finish = answer->finish();
  return FORERUN_OK;
}

int forerun_generate_keep(forerun_generator* generator, int32_t sequence, int32_t count) {
  FORERUN_TRY(require(generator, "generator"));
  const Visit visit(static_cast<forerun_session*>(generator->session));
  FORERUN_TRY(visit.status());
  Answer* answer = nullptr;
  FORERUN_TRY(generator->find(sequence, &answer));
  return answer->keep(count);
}

int forerun_generate(forerun_generator* generator, int32_t sequence, forerun_on_tokens on_tokens, void* data,
                     forerun_finish* finish) {
  FORERUN_TRY(require(generator, "generator"));
  const Visit visit(static_cast<forerun_session*>(generator->session));
  FORERUN_TRY(visit.status());
  FORERUN_TRY(require(finish, "finish"));
  Answer* answer = nullptr;
  FORERUN_TRY(generator->find(sequence, &answer));
  int32_t token_ids[FORERUN_MOST_DRAWN], drawn = 0;
  while (true) {
    FORERUN_TRY(answer->next(token_ids, &drawn));
    *finish = answer->finish();
    if (*finish != FORERUN_FINISH_NONE) return FORERUN_OK;
    if (drawn == 0) continue;
    int32_t taken = count_taken(*answer, token_ids, drawn, finish);
    const int32_t offered = taken;
    const bool stopped = on_tokens != nullptr && on_tokens(data, token_ids, &taken) != 0;
    if (stopped || taken < offered) *finish = FORERUN_FINISH_STOP;
    FORERUN_TRY(answer->keep(std::min(std::max(taken, 1), offered)));
    answer->end(*finish);
  }
}

void forerun_cancel(forerun_generator* generator, int32_t sequence) {
  Answer* const answer = generator != nullptr ? generator->answer_in(sequence) : nullptr;
  if (answer != nullptr) answer->cancel();
}

int forerun_generate_statistics(const forerun_generator* generator, int32_t sequence,
                                forerun_statistics* statistics) {
  FORERUN_TRY(require(generator, "generator"));
  FORERUN_TRY(require(statistics, "statistics"));
  Answer* answer = nullptr;
  FORERUN_TRY(generator->find(sequence, &answer));
  *statistics = answer->statistics();
  return FORERUN_OK;
}

int forerun_generate_exits(const forerun_generator* generator, int32_t sequence, int64_t* exits) {
  FORERUN_TRY(require(generator, "generator"));
  FORERUN_TRY(require(exits, "exits"));
  Answer* answer = nullptr;
  FORERUN_TRY(generator->find(sequence, &answer));
  std::copy_n(answer->exits(), generator->session->program().layers, exits);
  return FORERUN_OK;
}

int forerun_tune(forerun_generator* generator, int32_t sequence, forerun_costs* costs) {
  FORERUN_TRY(require(generator, "generator"));
  const Visit visit(static_cast<forerun_session*>(generator->session));
  FORERUN_TRY(visit.status());
  FORERUN_TRY(require(costs, "costs"));
  return generator->tune(sequence, costs);
}

int forerun_set_costs(forerun_generator* generator, const forerun_costs* costs) {
  FORERUN_TRY(require(generator, "generator"));
  FORERUN_TRY(require(costs, "costs"));
  return generator->set_costs(*costs);
}

int forerun_get_costs(const forerun_generator* generator, forerun_costs* costs) {
  FORERUN_TRY(require(generator, "generator"));
  FORERUN_TRY(require(costs, "costs"));
  *costs = generator->measured();
  return FORERUN_OK;
}

}  // extern "C"
