#include "apps/in_flight.h"

#include <utility>

namespace braid::apps {

InFlight::~InFlight() {
  if (num_finished() == num_submitted()) return;
  for (const RequestId id : ids_) engine_.cancel(id);
  wait_for_all();
}

Status InFlight::submit(Request request, OnTokens on_tokens) {
  ids_.emplace_back();  // before the engine has it: nothing may fail between that and counting it
  auto id = engine_.submit(std::move(request),
                           [this, on_tokens = std::move(on_tokens)](const TokenEvent& event) {
                             // Counted last and whatever on_tokens does: the owner may be gone
                             // right after.
                             struct Count {
                               InFlight* of;
                               ~Count() {
                                 if (of == nullptr) return;
                                 const std::lock_guard lock(of->mutex_);
                                 ++of->num_finished_;
                                 of->has_finished_.notify_one();
                               }
                             } const count{event.finished ? this : nullptr};
                             on_tokens(event);
                           });
  if (!id) {
    ids_.pop_back();
    return pass_on(id);
  }
  ids_.back() = *id;
  return {};
}

int64_t InFlight::num_finished() const {
  const std::lock_guard lock(mutex_);
  return num_finished_;
}

void InFlight::wait_for_more_than(int64_t num_seen) {
  std::unique_lock lock(mutex_);
  has_finished_.wait(lock, [&] { return num_finished_ > num_seen; });
}

void InFlight::wait_for_all() {
  if (ids_.empty()) return;
  wait_for_more_than(num_submitted() - 1);
}

}  // namespace braid::apps
