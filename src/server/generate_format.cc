// The answers of SGLang's /generate.

#include <chrono>
#include <utility>

#include "base/json.h"
#include "server/json_text.h"
#include "server/reply_format.h"
#include "server/token_names.h"

namespace braid::server {
namespace {

class GenerateFormat : public ReplyFormat {
 public:
  GenerateFormat(const GenerationRequest& request, ReplyHead head, const TextModel& model)
      : ReplyFormat(request),
        head_(std::move(head)),
        names_(model),
        sums_(prompt_of_choice_.size()),
        start_(std::chrono::steady_clock::now()) {}

  // Each chunk has all there is so far.
  std::string chunk(int32_t choice, const Event& event) override {
    append(sums_[choice], event);
    count(choice, sums_[choice]);
    Json out = choice_json(choice, sums_[choice]);
    if (request_.is_batch) out["index"] = choice;
    return sse(json_text(out));
  }

  std::string end_of_stream() override { return std::string(kEndOfStream); }

  Json whole(std::vector<Event> choices) override {
    Json list = Json::array();
    for (size_t i = 0; i < choices.size(); ++i) {
      count(static_cast<int32_t>(i), choices[i]);
      list.push_back(choice_json(static_cast<int32_t>(i), choices[i]));
    }
    return request_.is_batch ? list : list[0];
  }

 private:
  Json choice_json(int32_t choice, const Event& sum) {
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start_;
    Json meta = {{"id", request_.is_batch ? head_.id + "-" + std::to_string(choice) : head_.id},
                 {"finish_reason", finish_json(sum)},
                 {"prompt_tokens", sum.prompt_tokens},
                 {"completion_tokens", request_.drops_reply ? 0 : sum.completion_tokens},
                 {"cached_tokens", sum.cached_tokens},
                 {"e2e_latency", elapsed.count()},
                 {"weight_version", "default"}};
    if (request_.has_logprobs) add_logprobs(meta, choice, sum);
    return {{"text", shown_text(sum, request_)},
            {"output_ids", request_.drops_reply ? Json::array() : Json(sum.tokens)},
            {"meta_info", std::move(meta)}};
  }

  Json finish_json(const Event& sum) const {
    if (!sum.finished) return nullptr;
    if (request_.drops_reply) return {{"type", "length"}, {"length", 0}};
    switch (sum.reason) {
      case FinishReason::kLength:
        return {{"type", "length"}, {"length", sum.completion_tokens}};
      case FinishReason::kStop: {
        Json matched = sum.matched_stop;
        if (sum.matched_stop.empty())
          matched = sum.tokens.empty() ? Json() : Json(sum.tokens.back());
        return {{"type", "stop"}, {"matched", std::move(matched)}};
      }
      case FinishReason::kCancelled:
      case FinishReason::kError:
        break;
    }
    return {{"type", "abort"}, {"message", sum.error.empty() ? "aborted" : sum.error}};
  }

  Json triple(int32_t token, Json logprob) {
    Json text;
    if (request_.return_text_in_logprobs) text = names_.of(token).text;
    return Json::array({std::move(logprob), token, std::move(text)});
  }

  Json top_triples(const TokenLogprob& entry) {
    Json list = Json::array();
    for (const auto& [token, logprob] : entry.top)
      list.push_back(triple(token, json_logprob(logprob)));
    return list;
  }

  void add_logprobs(Json& meta, int32_t choice, const Event& sum) {
    const auto& prompt = request_.prompts[prompt_of_choice_[choice]];
    const bool has_top = prompt.sampling.logprobs.value_or(0) > 0;
    Json output = Json::array(), output_top = Json::array();
    if (!request_.drops_reply) {
      for (const TokenLogprob& entry : sum.logprobs) {
        output.push_back(triple(entry.token, json_logprob(entry.logprob)));
        if (has_top) output_top.push_back(top_triples(entry));
      }
    }
    Json input = Json::array(), input_top = Json::array();
    if (prompt.sampling.prompt_logprobs) {
      const auto start = static_cast<size_t>(request_.logprob_start);
      if (start == 0 && !prompt.tokens.empty()) {
        input.push_back(triple(prompt.tokens.front(), nullptr));
        input_top.push_back(nullptr);
      }
      // Entry i is of token i + 1.
      for (size_t i = start > 0 ? start - 1 : 0; i < sum.prompt_logprobs.size(); ++i) {
        const TokenLogprob& entry = sum.prompt_logprobs[i];
        input.push_back(triple(entry.token, json_logprob(entry.logprob)));
        if (has_top) input_top.push_back(top_triples(entry));
      }
    }
    meta["output_token_logprobs"] = std::move(output);
    meta["input_token_logprobs"] = std::move(input);
    if (!has_top) return;
    meta["output_top_logprobs"] = std::move(output_top);
    meta["input_top_logprobs"] = std::move(input_top);
  }

  ReplyHead head_;
  TokenNames names_;
  std::vector<Event> sums_;  // of the choices
  std::chrono::steady_clock::time_point start_;
};

}  // namespace

std::unique_ptr<ReplyFormat> generate_format(const GenerationRequest& request, ReplyHead head,
                                             const TextModel& model) {
  return std::make_unique<GenerateFormat>(request, std::move(head), model);
}

}  // namespace braid::server
