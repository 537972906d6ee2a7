// What every function of the C interface does first: check pointers and keep a second thread out.
#ifndef FORERUN_VISIT_H
#define FORERUN_VISIT_H

#include "session.h"

namespace forerun {

// One thread's stay in a session.
class Visit {
 public:
  explicit Visit(forerun_session* session) : session_(session) {
    entered_ = session != nullptr && session->team->enter();
  }
  Visit(const Visit&) = delete;
  Visit& operator=(const Visit&) = delete;
  ~Visit() {
    if (entered_) session_->team->leave();
  }

  Status status() const {
    if (session_ == nullptr) return fail(FORERUN_INVALID_ARGUMENT, "the session is NULL");
    if (entered_) return FORERUN_OK;
    return fail(FORERUN_BUSY,
                "another thread is using this session, or one that shares its threads; give every thread a "
                "session of its own");
  }

 private:
  forerun_session* session_;
  bool entered_ = false;
};

inline Status require(const void* pointer, const char* name) {
  return pointer != nullptr ? FORERUN_OK : fail(FORERUN_INVALID_ARGUMENT, "%s is NULL", name);
}

}  // namespace forerun

#endif
