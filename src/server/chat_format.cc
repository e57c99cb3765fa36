// The answers of /v1/chat/completions.

#include <utility>

#include "base/json.h"
#include "server/openai_frame.h"
#include "server/token_names.h"

namespace braid::server {
namespace {

Json bytes_json(const std::string& bytes) {
  Json list = Json::array();
  for (const char byte : bytes) list.push_back(static_cast<unsigned char>(byte));
  return list;
}

class ChatFormat : public ReplyFormat {
 public:
  ChatFormat(const GenerationRequest& request, const ReplyHead& head, const TextModel& model)
      : ReplyFormat(request),
        names_(model),
        frame_(request, head, "chat.completion", "chat.completion.chunk"),
        has_begun_(prompt_of_choice_.size(), false) {}

  // The last event of a choice makes two chunks if it has text: the text, then the end.
  std::string chunk(int32_t choice, const Event& event) override {
    count(choice, event);
    const bool is_first = !has_begun_[choice];
    const std::string text = shown_text(event, request_);
    std::string out;
    bool has_details = true;
    if (!event.finished || !text.empty() || is_first) {
      out = content_chunk(choice, event, text, is_first);
      has_details = false;
    }
    if (event.finished) {
      Json last = {{"index", choice},
                   {"delta", Json::object()},
                   {"logprobs", nullptr},
                   {"finish_reason", finish_name(event.reason)},
                   {"stop_reason", stop_reason(event, sampling(choice))}};
      if (has_details) add_details(last, event);
      out += frame_.chunk(last, usage_so_far());
    }
    return out;
  }

  std::string end_of_stream() override { return frame_.end(usage()); }

  Json whole(std::vector<Event> choices) override {
    Json list = Json::array();
    for (size_t i = 0; i < choices.size(); ++i) {
      const auto choice = static_cast<int32_t>(i);
      const Event& event = choices[i];
      count(choice, event);
      Json& out = list.emplace_back(
          Json{{"index", choice},
               {"message", {{"role", "assistant"}, {"content", shown_text(event, request_)}}},
               {"logprobs", nullptr},
               {"finish_reason", finish_name(event.reason)},
               {"stop_reason", stop_reason(event, sampling(choice))}});
      add_details(out, event);
      if (request_.return_token_ids) out["prompt_token_ids"] = prompt(choice).tokens;
      if (request_.has_prompt_logprobs)
        out["prompt_logprobs"] = prompt_logprobs_json(event, names_);
    }
    return frame_.whole(std::move(list), usage());
  }

 private:
  const GenerationRequest::Prompt& prompt(int32_t choice) const {
    return request_.prompts[prompt_of_choice_[choice]];
  }
  const SamplingParams& sampling(int32_t choice) const { return prompt(choice).sampling; }

  // The role comes with the first text: clients take the first chunk for the first token.
  std::string content_chunk(int32_t choice, const Event& event, const std::string& text,
                            bool is_first) {
    has_begun_[choice] = true;
    Json delta = {{"content", text}};
    if (is_first) delta["role"] = "assistant";
    Json out = {{"index", choice},
                {"delta", std::move(delta)},
                {"logprobs", nullptr},
                {"finish_reason", nullptr}};
    add_details(out, event);
    if (is_first && request_.return_token_ids) out["prompt_token_ids"] = prompt(choice).tokens;
    if (is_first && request_.has_prompt_logprobs)
      out["prompt_logprobs"] = prompt_logprobs_json(event, names_);
    return frame_.chunk(out, usage_so_far());
  }

  void add_details(Json& choice, const Event& event) {
    if (request_.return_token_ids) choice["token_ids"] = event.tokens;
    if (!request_.has_logprobs) return;
    Json content = Json::array();
    for (const TokenLogprob& entry : event.logprobs) {
      Json top = Json::array();
      for (const auto& [token, logprob] : entry.top) top.push_back(token_json(token, logprob));
      Json token = token_json(entry.token, entry.logprob);
      token["top_logprobs"] = std::move(top);
      content.push_back(std::move(token));
    }
    choice["logprobs"] = {{"content", std::move(content)}, {"refusal", nullptr}};
  }

  Json token_json(int32_t token, float logprob) {
    const TokenNames::Name& name = names_.of(token);
    return {{"token", name.text},
            {"logprob", json_logprob(logprob)},
            {"bytes", bytes_json(name.bytes)}};
  }

  TokenNames names_;
  OpenAiFrame frame_;
  std::vector<bool> has_begun_;  // of the choices
};

}  // namespace

std::unique_ptr<ReplyFormat> chat_format(const GenerationRequest& request, ReplyHead head,
                                         const TextModel& model) {
  return std::make_unique<ChatFormat>(request, head, model);
}

}  // namespace braid::server
