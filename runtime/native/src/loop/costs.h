// What calls of one to many rows cost on this machine. runtime/costs.py is the definition.
#ifndef FORERUN_LOOP_COSTS_H
#define FORERUN_LOOP_COSTS_H

#include "../session.h"

namespace forerun {

// Costs kept up with: what calls take moves with the machine's load and with the length of the text, and how
// much more many rows take than one moves with the speed of its memory.
class LiveCosts {
 public:
  bool known() const { return count_ > 0; }

  // Starts from measured costs; refuses those that cannot be.
  Status set(const forerun_costs& measured);

  // T(1) now.
  double plain_ms() const { return ms_[0] * slowness_; }

  // What one row more adds to a call of `rows` rows, in units of T(1).
  double marginal(int32_t rows) const { return relative(rows + 1) - relative(rows); }

  // T(rows) / T(1), between measured numbers along a line, beyond the last by its slope; never falling.
  double relative(int32_t rows) const { return between(rows) / ms_[0]; }

  // A call of so many rows took this long.
  void note(int32_t rows, double ms);

 private:
  double between(int32_t rows) const;
  void make_rising();

  int32_t count_ = 0;
  int32_t rows_[FORERUN_MOST_COSTS];
  double ms_[FORERUN_MOST_COSTS];
  double rising_[FORERUN_MOST_COSTS];
  double slowness_ = 1;
};

// Times calls on rows staged after what the sequence holds; it is left as it was. Takes some forty calls.
Status measure_costs(Session& session, int32_t sequence, int32_t token_id, forerun_costs* costs);

}  // namespace forerun

#endif
