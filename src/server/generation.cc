#include "server/generation.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>

#include "base/check.h"

namespace braid::server {

namespace asio = boost::asio;

Generation::Generation(Backend& backend, EventHub& hub, asio::any_io_executor executor,
                       std::string_view client_id)
    : backend_(backend), hub_(hub), number_(hub.add(*this, client_id)), wake_(executor) {
  wake_.expires_at(std::chrono::steady_clock::time_point::max());
}

Generation::~Generation() {
  hub_.remove(number_);
  cancel();
}

std::optional<ApiError> Generation::start(std::vector<Request> requests) {
  BRAID_CHECK_LT(requests.size(), size_t{1} << EventHub::kChoiceBits);
  choices_.reserve(requests.size());
  for (Request& request : requests) {
    request.tag = (number_ << EventHub::kChoiceBits) | choices_.size();
    auto id = backend_.submit(std::move(request));
    if (!id) {
      cancel();
      return to_api_error(id.error());
    }
    choices_.push_back({.id = *id, .is_running = true});
    ++num_running_;
  }
  return std::nullopt;
}

asio::awaitable<void> Generation::wait() {
  while (events_.empty() && num_running_ > 0)
    co_await wake_.async_wait(asio::as_tuple(asio::use_awaitable));
}

std::vector<Generation::ChoiceEvent> Generation::take() { return std::exchange(events_, {}); }

void Generation::cancel() {
  for (const Choice& choice : choices_) {
    if (choice.is_running) backend_.cancel(choice.id);
  }
}

void Generation::take_event(int32_t choice, Event event) {
  if (event.finished && choices_[choice].is_running) {
    choices_[choice].is_running = false;
    --num_running_;
  }
  events_.push_back({.choice = choice, .event = std::move(event)});
  wake_.cancel();
}

}  // namespace braid::server
