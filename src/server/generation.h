#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "server/api_error.h"
#include "server/backend.h"
#include "server/event_hub.h"

namespace braid::server {

// The engine's requests behind one request of a client: one for each prompt and sample. Gathers
// their events until they are asked for. When it goes, whatever still runs is cancelled. On the IO
// thread only.
class Generation {
 public:
  Generation(Backend& backend, EventHub& hub, boost::asio::any_io_executor executor,
             std::string_view client_id);
  ~Generation();
  Generation(const Generation&) = delete;
  Generation& operator=(const Generation&) = delete;

  // Queues all of them, or none.
  std::optional<ApiError> start(std::vector<Request> requests);

  // Returns when there are events, or none will come.
  boost::asio::awaitable<void> wait();

  struct ChoiceEvent {
    int32_t choice;
    Event event;
  };
  // The events since the last call, in order.
  std::vector<ChoiceEvent> take();

  // Choices that have not had their last event.
  int32_t num_running() const { return num_running_; }
  // Whether take() has or will have anything more: the last events may have come meanwhile.
  bool has_more() const { return num_running_ > 0 || !events_.empty(); }

  // Each gets its last event, kCancelled, soon.
  void cancel();

  void take_event(int32_t choice, Event event);  // from the hub

 private:
  struct Choice {
    RequestId id{};
    bool is_running = false;
  };
  Backend& backend_;
  EventHub& hub_;
  uint64_t number_;
  std::vector<Choice> choices_;
  int32_t num_running_ = 0;
  std::vector<ChoiceEvent> events_;
  boost::asio::steady_timer wake_;  // never expires: cancelled to wake the waiter
};

}  // namespace braid::server
