#pragma once

#include <string>
#include <string_view>

#include "server/json_text.h"
#include "server/reply_format.h"

namespace braid::server {

// What the two OpenAI routes put around their choices.
class OpenAiFrame {
 public:
  // `object`: "text_completion", "chat.completion"; `chunk_object`: of chunks.
  OpenAiFrame(const GenerationRequest& request, const ReplyHead& head, std::string_view object,
              std::string_view chunk_object)
      : request_(request), whole_(fields(head, object)), chunk_(fields(head, chunk_object)) {
    // "{...}" -> "{...,"choices":["
    begin_ = json_text(chunk_);
    begin_.back() = ',';
    begin_ += "\"choices\":[";
  }

  // A chunk of one choice.
  std::string chunk(const Json& choice, const Usage& usage) const {
    return sse(begin_ + json_text(choice) + "]" + usage_field(usage) + "}");
  }

  std::string end(const Usage& usage) const {
    std::string out;
    if (request_.include_usage)
      out = sse(begin_ + "],\"usage\":" + json_text(usage_json(usage)) + "}");
    out += kEndOfStream;
    return out;
  }

  Json whole(Json choices, const Usage& usage) const {
    Json out = whole_;
    out["choices"] = std::move(choices);
    out["usage"] = usage_json(usage);
    if (request_.return_cached_details) {
      out["sglext"] = {{"cached_tokens_details", {{"device", usage.cached_tokens}, {"host", 0}}}};
    }
    return out;
  }

 private:
  static Json fields(const ReplyHead& head, std::string_view object) {
    return {{"id", head.id}, {"object", object}, {"created", head.created}, {"model", head.model}};
  }
  std::string usage_field(const Usage& usage) const {
    if (request_.include_usage_always) return ",\"usage\":" + json_text(usage_json(usage));
    return request_.include_usage ? ",\"usage\":null" : "";
  }

  const GenerationRequest& request_;
  Json whole_;
  Json chunk_;
  std::string begin_;
};

}  // namespace braid::server
