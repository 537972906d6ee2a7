/* The generate loop: ids of plain decoding by every drafter, no memory taken by its steps, and what it
 * refuses. */
#include <string.h>

#include "core_test.h"

enum { CAPACITY = 48, VOCABULARY = 37, MOST = 80 };

/* Temperature 0. */
#define GREEDY {0, 0, 1, 0}

static const char* const kDrafters[][3] = {
    {"lookup:min_ngram=1,tokens=5", NULL, NULL},
    {"lookup:min_ngram=1,max_ngram=2,branches=4", "tree:branches=2+2+1", NULL},
    {"self:layers=1,tokens=5", NULL, NULL},
    {"self:layers=2", "grown:reach=0,rows=9,width=3", NULL},
    {"self:skip=a1+f1", "cape:siblings=2", NULL},
    {"auto", NULL, NULL},
    {"none", NULL, "confidence:layers=0+1,threshold=0.05"},
    {"self:layers=2", "chain:tokens=3", "confidence:layers=1,threshold=0.04"},
};

typedef struct answer {
  int32_t token_ids[MOST];
  int32_t count;
  int32_t stop_at; /* tokens after which the callback ends it, 0 = never */
} answer;

static int keep(void* data, const int32_t* token_ids, int32_t* drawn) {
  answer* answer = data;
  for (int32_t i = 0; i < *drawn; ++i) {
    CHECK(answer->count < MOST);
    answer->token_ids[answer->count++] = token_ids[i];
    if (answer->count != answer->stop_at) continue;
    *drawn = i + 1;
    return 1;
  }
  return 0;
}

static forerun_finish run(forerun_generator* generator, int32_t sequence, const forerun_generation* wanted,
                          const int32_t* prompt, int32_t count, answer* answer) {
  forerun_finish finish;
  answer->count = 0;
  CHECK(forerun_generate_start(generator, sequence, prompt, count, wanted) == FORERUN_OK);
  const long before = allocation_count();
  CHECK(forerun_generate(generator, sequence, keep, answer, &finish) == FORERUN_OK);
  CHECK(allocation_count() == before);
  return finish;
}

static void test_same_ids(forerun_generator* generator, uint64_t* random) {
  for (size_t d = 0; d < sizeof kDrafters / sizeof *kDrafters; ++d) {
    for (int32_t round = 0; round < 6; ++round) {
      int32_t prompt[12];
      const int32_t count = 1 + pick(random, 12), end = pick(random, VOCABULARY);
      for (int32_t i = 0; i < count; ++i) prompt[i] = pick(random, 5);
      static answer plain, drafted;
      plain.stop_at = drafted.stop_at = round == 5 ? 3 : 0;
      forerun_generation wanted = {"none", NULL, kDrafters[d][2], GREEDY, 30, &end, round == 4};
      wanted.sampling = (forerun_sampling){round % 3 * 0.5, round % 2 * 5, 1, (uint64_t)round};
      const forerun_finish finish = run(generator, 0, &wanted, prompt, count, &plain);
      wanted.drafter = kDrafters[d][0];
      wanted.shape = kDrafters[d][1];
      CHECK(run(generator, 1, &wanted, prompt, count, &drafted) == finish);
      CHECK(drafted.count == plain.count);
      CHECK(memcmp(drafted.token_ids, plain.token_ids, (size_t)plain.count * sizeof(int32_t)) == 0);
      forerun_statistics facts;
      CHECK(forerun_generate_statistics(generator, 1, &facts) == FORERUN_OK);
      CHECK(facts.generated_tokens == drafted.count && facts.accepted <= facts.drafted);
    }
  }
}

/* Answers that end anywhere: cancelled, stopped, given up for the next. */
static void test_cycles(forerun_session* session, forerun_generator* generator, uint64_t* random,
                        int32_t cycles) {
  int32_t prompt[6] = {1, 2, 3, 1, 2, 3}, token_ids[FORERUN_MOST_DRAWN], drawn;
  for (int32_t cycle = 0; cycle < cycles; ++cycle) {
    const char* const* const spec = kDrafters[pick(random, sizeof kDrafters / sizeof *kDrafters)];
    const forerun_generation wanted = {spec[0], spec[1], spec[2], GREEDY, 1 + pick(random, 40), NULL, 0};
    prompt[5] = pick(random, VOCABULARY);
    CHECK(forerun_generate_start(generator, 0, prompt, 6, &wanted) == FORERUN_OK);
    forerun_finish finish = FORERUN_FINISH_NONE;
    for (int32_t step = pick(random, 6); step > 0 && finish == FORERUN_FINISH_NONE; --step) {
      CHECK(forerun_generate_next(generator, 0, token_ids, &drawn, &finish) == FORERUN_OK);
      if (drawn > 0) CHECK(forerun_generate_keep(generator, 0, 1 + pick(random, drawn)) == FORERUN_OK);
    }
    if (pick(random, 2)) forerun_cancel(generator, 0);
    const forerun_finish before = finish;
    CHECK(forerun_generate_next(generator, 0, token_ids, &drawn, &finish) == FORERUN_OK);
    CHECK(before == FORERUN_FINISH_NONE || finish == before);
    if (pick(random, 2)) CHECK(forerun_rewind(session, 0, 0) == FORERUN_OK);
  }
}

static void test_refusals(forerun_generator* generator) {
  const int32_t prompt[2] = {1, 2}, outside[1] = {VOCABULARY};
  int32_t token_ids[FORERUN_MOST_DRAWN], drawn, many[CAPACITY + 1] = {0};
  forerun_finish finish;
  forerun_generation wanted = {"none", NULL, NULL, GREEDY, 5, NULL, 0};
  CHECK(forerun_generate_next(generator, 1, token_ids, &drawn, &finish) == FORERUN_INVALID_ARGUMENT);
  CHECK(forerun_generate_start(generator, 9, prompt, 2, &wanted) == FORERUN_INVALID_ARGUMENT);
  CHECK(forerun_generate_start(generator, 0, prompt, 0, &wanted) == FORERUN_INVALID_ARGUMENT);
  CHECK(forerun_generate_start(generator, 0, outside, 1, &wanted) == FORERUN_INVALID_ARGUMENT);
  CHECK(forerun_generate_start(generator, 0, many, CAPACITY + 1, &wanted) == FORERUN_CONTEXT_FULL);
  CHECK(forerun_generate_start(generator, 0, NULL, 1, &wanted) == FORERUN_INVALID_ARGUMENT);
  CHECK(forerun_generate_start(generator, 0, prompt, 2, NULL) == FORERUN_INVALID_ARGUMENT);
  const char* const wrong[] = {"nothing",
                               "lookup:tokens",
                               "lookup:tokens=x",
                               "lookup:token=1",
                               "self:layers=9",
                               "self:skip=a1+x",
                               "feature",
                               "auto:network=no",
                               "self:layers=1,layers=1",
                               "self:skip=a1,layers=1",
                               ""};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; ++i) {
    wanted.drafter = wrong[i];
    CHECK(forerun_generate_start(generator, 0, prompt, 2, &wanted) == FORERUN_INVALID_ARGUMENT);
    CHECK(forerun_generate_next(generator, 0, token_ids, &drawn, &finish) == FORERUN_INVALID_ARGUMENT);
  }
  wanted = (forerun_generation){"none", NULL, NULL, GREEDY, 5, NULL, 0};
  CHECK(forerun_generate_start(generator, 0, prompt, 2, &wanted) == FORERUN_OK);
  CHECK(forerun_generate_keep(generator, 0, 1) == FORERUN_INVALID_ARGUMENT);
  CHECK(forerun_generate_next(generator, 0, token_ids, &drawn, &finish) == FORERUN_OK && drawn == 1);
  CHECK(forerun_generate_next(generator, 0, token_ids, &drawn, &finish) == FORERUN_INVALID_ARGUMENT);
  CHECK(forerun_generate_keep(generator, 0, 2) == FORERUN_INVALID_ARGUMENT);
  CHECK(forerun_generate_keep(generator, 0, 1) == FORERUN_OK);
  forerun_costs costs = {0};
  CHECK(forerun_set_costs(generator, &costs) == FORERUN_INVALID_ARGUMENT);
}

/* Memory is refused after every number of requests: an error, and nothing kept. */
static void test_refused_memory(forerun_session* session) {
  const int32_t prompt[2] = {1, 2};
  int refused = 0;
  for (long more = 0; more < 40; ++more) {
    forerun_generator* generator = NULL;
    const forerun_generation wanted = {"auto", NULL, NULL, GREEDY, 4, NULL, 0};
    allow_allocations(more);
    int status = forerun_generator_create(session, &generator);
    if (status == FORERUN_OK) status = forerun_generate_start(generator, 0, prompt, 2, &wanted);
    allow_allocations(-1);
    CHECK(status == FORERUN_OK || status == FORERUN_OUT_OF_MEMORY);
    refused += status != FORERUN_OK;
    forerun_generator_release(generator);
  }
  CHECK(refused >= 5 && refused < 40);
}

void test_generate(forerun_bundle* bundle, uint64_t seed, int32_t threads, int32_t cycles) {
  const forerun_session_options options = {2, CAPACITY, threads, NULL};
  forerun_session* session;
  forerun_generator* generator;
  forerun_costs costs = {0};
  int32_t sequence;
  CHECK(forerun_session_create(bundle, &options, &session) == FORERUN_OK);
  CHECK(forerun_sequence_create(session, &sequence) == FORERUN_OK);
  CHECK(forerun_sequence_create(session, &sequence) == FORERUN_OK);
  test_refused_memory(session);
  CHECK(forerun_generator_create(session, &generator) == FORERUN_OK);
  test_refusals(generator);
  CHECK(forerun_get_costs(generator, &costs) == FORERUN_OK && costs.count == 0);
  CHECK(forerun_tune(generator, 1, &costs) == FORERUN_OK && costs.count >= 2);
  CHECK(forerun_set_costs(generator, &costs) == FORERUN_OK);
  test_same_ids(generator, &seed);
  test_cycles(session, generator, &seed, cycles);
  forerun_generator_release(generator);
  forerun_session_release(session);
}
