// The routes that generate: read the request, find its adapters, queue it, write what comes.

#include <fmt/format.h>

#include <chrono>
#include <utility>

#include "base/json.h"
#include "server/adapter_choice.h"
#include "server/generation.h"
#include "server/http/exchange.h"
#include "server/json_text.h"
#include "server/reply_format.h"
#include "server/routes.h"
#include "server/schema_text.h"
#include "server/services.h"
#include "server/worker.h"

namespace braid::server {
namespace {

namespace asio = boost::asio;

// One of the routes.
struct Kind {
  std::string_view id_prefix;
  ApiResult<GenerationRequest> (*read)(const Json& body, const TextModel& model,
                                       const RequestDefaults& defaults);
  std::unique_ptr<ReplyFormat> (*format)(const GenerationRequest& request, ReplyHead head,
                                         const TextModel& model);
};

constexpr Kind kCompletions = {"cmpl-", read_completion_request, completion_format};
constexpr Kind kChat = {"chatcmpl-", read_chat_request, chat_format};
constexpr Kind kGenerate = {"", read_generate_request, generate_format};

// Bodies beyond it are parsed and tokenized beside the IO thread.
constexpr size_t kLargeBody = size_t{16} << 10;
// So are answers with more log probabilities than that.
constexpr size_t kManyLogprobs = 256;

asio::awaitable<ApiResult<GenerationRequest>> read_request(const Kind& kind, Services& services,
                                                           const std::string& body) {
  const auto read = [&kind, &services, &body]() -> ApiResult<GenerationRequest> {
    auto json = parse_body(body);
    if (!json) return tl::unexpected<ApiError>(std::move(json.error()));
    keep_schema_text(*json, body);
    return kind.read(*json, services.backend, services.defaults);
  };
  if (body.size() <= kLargeBody) co_return read();
  co_return co_await run_on(services.parser, read);
}

asio::awaitable<ApiResult<std::vector<AdapterId>>> find_adapters(const GenerationRequest& request,
                                                                 Services& services,
                                                                 ExchangeRecord& record) {
  std::vector<AdapterId> ids;
  std::string last_name;
  for (const auto& prompt : request.prompts) {
    ApiResult<std::string> name =
        adapter_name(request.model, prompt.lora, services.config.model_names);
    if (!name) co_return tl::unexpected<ApiError>(name.error());
    if (!ids.empty() && *name == last_name) {
      ids.push_back(ids.back());
      continue;
    }
    ApiResult<AdapterId> id = co_await find_adapter(services, *name);
    if (!id) co_return tl::unexpected<ApiError>(id.error());
    ids.push_back(*id);
    last_name = *name;
  }
  record.adapter = last_name;
  co_return ids;
}

// Found before a prompt is copied for each of its samples.
std::optional<ApiError> why_too_long(const GenerationRequest& request, const Backend& backend) {
  for (const auto& prompt : request.prompts) {
    if (prompt.tokens.size() < static_cast<size_t>(backend.max_context())) continue;
    return ApiError{
        .message = fmt::format("a prompt has {} tokens, the context is {} tokens of prompt and "
                               "reply",
                               prompt.tokens.size(), backend.max_context()),
        .param = "prompt"};
  }
  return std::nullopt;
}

asio::awaitable<std::optional<ApiError>> prepare_grammars(const GenerationRequest& request,
                                                          Services& services) {
  const std::optional<OutputGrammar>* last = nullptr;
  for (const auto& prompt : request.prompts) {
    const auto& grammar = prompt.sampling.grammar;
    if (!grammar || (last != nullptr && *last == grammar)) continue;
    last = &grammar;
    Backend& backend = services.backend;
    const Status status = co_await run_on(
        services.parser, [&backend, &grammar] { return backend.prepare_grammar(*grammar); });
    if (!status) co_return server::to_api_error(status.error(), "response_format");
  }
  co_return std::nullopt;
}

ApiError to_api_error(const Event& event) {
  if (event.error_code) return server::to_api_error(Error{*event.error_code, event.error}, "model");
  return {.status = 500, .message = event.error};
}

// The events of a generation on their way to the client.
class Answer {
 public:
  Answer(Exchange& exchange, Services& services, Generation& generation, ReplyFormat& format,
         size_t num_choices)
      : exchange_(exchange),
        services_(services),
        generation_(generation),
        format_(format),
        last_token_(num_choices) {}

  ~Answer() {
    for (int32_t i = 0; i < generation_.num_running(); ++i)
      services_.metrics.count_abandoned(exchange_.record().adapter);
    const Usage usage = format_.usage();
    ExchangeRecord& record = exchange_.record();
    record.prompt_tokens = static_cast<int32_t>(usage.prompt_tokens);
    record.cached_tokens = static_cast<int32_t>(usage.cached_tokens);
    record.completion_tokens = static_cast<int32_t>(usage.completion_tokens);
  }
  Answer(const Answer&) = delete;
  Answer& operator=(const Answer&) = delete;

  // The next events. False where one of them is a failure: see error().
  asio::awaitable<bool> next() {
    co_await generation_.wait();
    events_ = generation_.take();
    for (const auto& [choice, event] : events_) {
      services_.metrics.count(event, exchange_.record().adapter, last_token_[choice]);
      last_token_[choice] = event.times.last_token;
      ExchangeRecord& record = exchange_.record();
      if (record.first_token_seconds < 0 && !event.tokens.empty()) {
        record.first_token_seconds =
            std::chrono::duration<double>(std::chrono::steady_clock::now() -
                                          exchange_.request().arrived)
                .count();
      }
      if (event.finished) record.finish_reason = finish_name(event.reason);
      if (event.finished && event.reason == FinishReason::kError) error_ = to_api_error(event);
    }
    co_return !error_;
  }

  asio::awaitable<void> stream() {
    if (!co_await next()) co_return co_await fail();
    std::string out = co_await chunks();
    co_await exchange_.begin_stream(out);
    while (generation_.has_more()) {
      const bool is_good = co_await next();
      out = co_await chunks();
      if (!is_good) {
        out += sse(error_json(*error_));
        exchange_.record().error = error_->message;
      }
      co_await exchange_.write(out);
      if (!is_good) break;
    }
    if (!error_) co_await exchange_.write(format_.end_of_stream());
    co_await exchange_.end_stream();
  }

  asio::awaitable<void> whole() {
    std::vector<Event> sums(last_token_.size());
    while (generation_.has_more()) {
      if (!co_await next()) co_return co_await fail();
      for (auto& [choice, event] : events_) append(sums[choice], std::move(event));
    }
    size_t num_entries = 0;
    for (const Event& sum : sums) num_entries += sum.logprobs.size() + sum.prompt_logprobs.size();
    const auto make = [this, &sums] { return json_text(format_.whole(std::move(sums))); };
    HttpResponse response;
    if (num_entries > kManyLogprobs) {
      response.body = co_await run_on(services_.parser, make);
    } else {
      response.body = make();
    }
    co_await exchange_.send(std::move(response));
  }

 private:
  asio::awaitable<std::string> chunks() {
    size_t num_entries = 0;
    for (const auto& [choice, event] : events_) num_entries += event.prompt_logprobs.size();
    const auto make = [this] {
      std::string out;
      for (const auto& [choice, event] : events_) {
        if (event.reason != FinishReason::kError) out += format_.chunk(choice, event);
      }
      return out;
    };
    if (num_entries <= kManyLogprobs) co_return make();
    co_return co_await run_on(services_.parser, make);
  }

  asio::awaitable<void> fail() {
    exchange_.record().error = error_->message;
    co_await exchange_.send(error_response(*error_));
  }

  Exchange& exchange_;
  Services& services_;
  Generation& generation_;
  ReplyFormat& format_;
  std::vector<Generation::ChoiceEvent> events_;
  std::vector<std::chrono::steady_clock::time_point> last_token_;  // of the choices
  std::optional<ApiError> error_;
};

asio::awaitable<void> refuse(Exchange& exchange, const ApiError& error) {
  exchange.record().error = error.message;
  co_await exchange.send(error_response(error));
}

asio::awaitable<void> generate(const Kind& kind, Services& services, Exchange& exchange) {
  ExchangeRecord& record = exchange.record();
  const HttpRequest& http = exchange.request();
  ApiResult<GenerationRequest> request = co_await read_request(kind, services, http.body);
  if (!request) co_return co_await refuse(exchange, request.error());
  record.model = request->model;
  if (auto error = why_too_long(*request, services.backend))
    co_return co_await refuse(exchange, *error);
  if (!http.is_admin) request->priority = std::min(request->priority, 0);
  ApiResult<std::vector<AdapterId>> adapters = co_await find_adapters(*request, services, record);
  if (!adapters) co_return co_await refuse(exchange, adapters.error());

  if (auto error = co_await prepare_grammars(*request, services))
    co_return co_await refuse(exchange, *error);

  const std::string id = services.new_id(kind.id_prefix);
  const std::string client_id = request->client_id.empty() ? id : request->client_id;
  ReplyHead head = {
      .id = kind.id_prefix.empty() ? client_id : id,
      .created = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now()),
      .model = request->model.empty() ? services.config.model_names.front() : request->model};
  const auto format = kind.format(*request, std::move(head), services.backend);
  const auto executor = co_await asio::this_coro::executor;
  Generation generation(services.backend, services.hub, executor, client_id);
  services.metrics.count(*request);
  if (auto error = generation.start(engine_requests(*request, *adapters, services.random())))
    co_return co_await refuse(exchange, *error);

  Answer answer(exchange, services, generation, *format,
                static_cast<size_t>(request->num_choices()));
  if (request->stream) {
    co_await answer.stream();
  } else {
    co_await answer.whole();
  }
}

}  // namespace

void add_generation_routes(Router& router, Services& services) {
  const auto add = [&](const char* path, const Kind& kind) {
    router.add({.method = "POST",
                .path = path,
                .access = Access::kApi,
                .handler = [&kind, &services](Exchange& exchange) {
                  return generate(kind, services, exchange);
                }});
  };
  add("/v1/completions", kCompletions);
  add("/v1/chat/completions", kChat);
  add("/generate", kGenerate);
}

}  // namespace braid::server
