#include "tests/server/null_backend.h"

#include <algorithm>

#include "base/json.h"
#include "base/result.h"

namespace braid::test {

using server::Event;

NullBackend::NullBackend(std::chrono::microseconds step, std::vector<std::string> adapters)
    : step_(step), adapters_(std::move(adapters)), thread_([this] { run(); }) {}

NullBackend::~NullBackend() {
  {
    const std::lock_guard lock(mutex_);
    stops_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

int32_t NullBackend::num_active() const {
  const std::lock_guard lock(mutex_);
  return static_cast<int32_t>(active_.size());
}

Result<std::vector<int32_t>> NullBackend::tokenize(std::string_view text, bool) const {
  std::vector<int32_t> tokens;
  for (const char c : text) tokens.push_back(static_cast<unsigned char>(c));
  return tokens;
}

Result<std::string> NullBackend::detokenize(std::span<const int32_t> tokens, bool) const {
  std::string text;
  for (const int32_t token : tokens) text += static_cast<char>(token);
  return text;
}

Result<std::vector<int32_t>> NullBackend::apply_chat_template(std::string_view messages_json,
                                                              std::string_view options_json) const {
  auto messages = parse_json(messages_json);
  if (!messages) return pass_on(messages);
  std::string text;
  for (const Json& message : *messages) {
    const Json& content = message["content"];
    text += message["role"].get<std::string>() + ":" +
            (content.is_string() ? content.get<std::string>() : content.dump()) + "\n";
  }
  return tokenize(text + std::string(options_json), false);
}

std::string NullBackend::token_bytes(int32_t token) const {
  return std::string(1, static_cast<char>(token));
}

void NullBackend::set_on_events(OnEvents on_events) {
  const std::lock_guard lock(on_events_mutex_);
  on_events_ = std::move(on_events);
}

Result<RequestId> NullBackend::submit(Request request) {
  if (request.sampling.max_tokens < 1)
    return fail(ErrorCode::kInvalidArgument, "max_tokens = {}, need at least 1",
                request.sampling.max_tokens);
  RequestId id;
  {
    const std::lock_guard lock(mutex_);
    id = RequestId{next_id_++};
    Active active = {.request = std::move(request)};
    active.times.queued = active.times.started = std::chrono::steady_clock::now();
    active_.emplace(id, std::move(active));
  }
  changed_.notify_one();
  return id;
}

void NullBackend::cancel(RequestId id) {
  const std::lock_guard lock(mutex_);
  const auto found = active_.find(id);
  if (found != active_.end()) found->second.is_cancelled = true;
}

EngineStats NullBackend::stats() const { return {.running = num_active()}; }

std::vector<Event> NullBackend::step() {
  std::vector<Event> events;
  events.reserve(active_.size());
  const auto now = std::chrono::steady_clock::now();
  for (auto it = active_.begin(); it != active_.end();) {
    auto& [request, num_generated, is_cancelled, times] = it->second;
    Event event = {.tag = request.tag};
    event.prompt_tokens = static_cast<int32_t>(request.prompt.size());
    if (is_cancelled) {
      event.finished = true;
      event.reason = FinishReason::kCancelled;
    } else {
      ++num_generated;
      event.tokens = {'t'};
      event.text = " tok";
      times.last_token = now;
      if (num_generated == 1) times.first_token = now;
      event.finished = num_generated == request.sampling.max_tokens;
      event.reason = FinishReason::kLength;
    }
    event.completion_tokens = num_generated;
    event.times = times;
    const bool is_over = event.finished;
    events.push_back(std::move(event));
    it = is_over ? active_.erase(it) : std::next(it);
  }
  return events;
}

void NullBackend::run() {
  auto next = std::chrono::steady_clock::now();
  for (;;) {
    std::vector<Event> events;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return stops_ || !active_.empty(); });
      if (stops_) return;
      events = step();
    }
    {
      const std::lock_guard lock(on_events_mutex_);
      if (on_events_) on_events_(std::move(events));
    }
    next = std::max(next + step_, std::chrono::steady_clock::now() - step_);
    std::this_thread::sleep_until(next);
  }
}

std::optional<AdapterId> NullBackend::find_adapter(std::string_view name) const {
  const auto found = std::ranges::find(adapters_, name);
  if (found == adapters_.end()) return std::nullopt;
  return AdapterId{static_cast<int32_t>(found - adapters_.begin())};
}

Result<AdapterId> NullBackend::resolve_adapter(std::string_view name) {
  return fail(ErrorCode::kNotFound, "there is no adapter \"{}\"", name);
}

Result<AdapterId> NullBackend::add_adapter(std::string name, const std::filesystem::path&,
                                           const AdapterOptions&) {
  return fail(ErrorCode::kUnsupported, "adapter \"{}\": there is no model", name);
}

Result<AdapterId> NullBackend::add_adapter_bytes(std::string name, const AdapterBytes&,
                                                 const AdapterOptions&) {
  return fail(ErrorCode::kUnsupported, "adapter \"{}\": there is no model", name);
}

Status NullBackend::pin_adapter(AdapterId, bool) { return {}; }
Status NullBackend::remove_adapter(AdapterId) { return {}; }

std::vector<AdapterInfo> NullBackend::adapters() const {
  std::vector<AdapterInfo> infos;
  for (size_t i = 0; i < adapters_.size(); ++i)
    infos.push_back({.id = AdapterId{static_cast<int32_t>(i)}, .name = adapters_[i]});
  return infos;
}

Result<AdapterInfo> NullBackend::adapter(AdapterId id) const {
  const auto index = static_cast<size_t>(id);
  if (index >= adapters_.size()) return fail(ErrorCode::kNotFound, "no such adapter");
  return adapters()[index];
}

Result<AdapterReport> NullBackend::adapter_report(AdapterId) const { return AdapterReport{}; }

}  // namespace braid::test
