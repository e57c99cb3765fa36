// The answers of /v1/completions.

#include <utility>

#include "base/json.h"
#include "server/openai_frame.h"
#include "server/token_names.h"

namespace braid::server {
namespace {

// The older form of log probabilities: lists that run beside each other.
class LegacyLogprobs {
 public:
  LegacyLogprobs(TokenNames& names, int64_t& text_offset) : names_(names), offset_(text_offset) {}

  // The first token of a prompt has none.
  void add_first(int32_t token) { add_token(token, nullptr, nullptr); }

  void add(const TokenLogprob& entry) {
    Json top = Json::object();
    // Two tokens may read alike: the better one, which comes first, stays.
    for (const auto& [token, logprob] : entry.top)
      top.emplace(names_.of(token).text, json_logprob(logprob));
    top.emplace(names_.of(entry.token).text, json_logprob(entry.logprob));
    add_token(entry.token, json_logprob(entry.logprob), std::move(top));
  }

  Json json() && {
    return {{"tokens", std::move(tokens_)},
            {"token_logprobs", std::move(logprobs_)},
            {"top_logprobs", std::move(top_)},
            {"text_offset", std::move(offsets_)}};
  }

 private:
  void add_token(int32_t token, Json logprob, Json top) {
    const std::string& text = names_.of(token).text;
    tokens_.push_back(text);
    logprobs_.push_back(std::move(logprob));
    top_.push_back(std::move(top));
    offsets_.push_back(offset_);
    offset_ += count_characters(text);
  }

  TokenNames& names_;
  int64_t& offset_;  // characters in front of the next token
  Json tokens_ = Json::array();
  Json logprobs_ = Json::array();
  Json top_ = Json::array();
  Json offsets_ = Json::array();
};

class CompletionFormat : public ReplyFormat {
 public:
  CompletionFormat(const GenerationRequest& request, const ReplyHead& head, const TextModel& model)
      : ReplyFormat(request),
        model_(model),
        names_(model),
        frame_(request, head, "text_completion", "text_completion"),
        states_(prompt_of_choice_.size()) {}

  std::string chunk(int32_t choice, const Event& event) override {
    count(choice, event);
    return frame_.chunk(choice_json(choice, event), usage_so_far());
  }

  std::string end_of_stream() override { return frame_.end(usage()); }

  Json whole(std::vector<Event> choices) override {
    Json list = Json::array();
    for (size_t i = 0; i < choices.size(); ++i) {
      count(static_cast<int32_t>(i), choices[i]);
      list.push_back(choice_json(static_cast<int32_t>(i), choices[i]));
    }
    return frame_.whole(std::move(list), usage());
  }

 private:
  struct State {
    bool has_begun = false;
    int64_t text_offset = 0;
  };

  Json choice_json(int32_t choice, const Event& event) {
    const auto& prompt = request_.prompts[prompt_of_choice_[choice]];
    State& state = states_[choice];
    const bool is_first = !std::exchange(state.has_begun, true);
    std::string text = shown_text(event, request_);
    if (is_first && request_.echo) text = prompt_text(prompt) + text;
    Json out = {{"index", choice},
                {"text", std::move(text)},
                {"logprobs", nullptr},
                {"finish_reason", nullptr}};
    if (event.finished) {
      out["finish_reason"] = request_.drops_reply ? "length" : finish_name(event.reason);
      out["stop_reason"] = stop_reason(event, prompt.sampling);
    }
    if (request_.has_logprobs)
      out["logprobs"] = logprobs(prompt, event, is_first && request_.echo, state.text_offset);
    if (request_.has_prompt_logprobs && is_first)
      out["prompt_logprobs"] = prompt_logprobs_json(event, names_);
    if (request_.return_token_ids) {
      out["token_ids"] = request_.drops_reply ? Json::array() : Json(event.tokens);
      if (is_first) out["prompt_token_ids"] = prompt.tokens;
    }
    return out;
  }

  std::string prompt_text(const GenerationRequest::Prompt& prompt) const {
    if (!prompt.text.empty()) return prompt.text;
    return model_.detokenize(prompt.tokens, prompt.sampling.skip_special_tokens).value_or("");
  }

  Json logprobs(const GenerationRequest::Prompt& prompt, const Event& event, bool has_prompt,
                int64_t& text_offset) {
    LegacyLogprobs out(names_, text_offset);
    if (has_prompt) {
      out.add_first(prompt.tokens.front());
      for (const TokenLogprob& entry : event.prompt_logprobs) out.add(entry);
    }
    if (!request_.drops_reply) {
      for (const TokenLogprob& entry : event.logprobs) out.add(entry);
    }
    return std::move(out).json();
  }

  const TextModel& model_;
  TokenNames names_;
  OpenAiFrame frame_;
  std::vector<State> states_;  // of the choices
};

}  // namespace

std::unique_ptr<ReplyFormat> completion_format(const GenerationRequest& request, ReplyHead head,
                                               const TextModel& model) {
  return std::make_unique<CompletionFormat>(request, head, model);
}

}  // namespace braid::server
