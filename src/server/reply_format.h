#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "server/backend.h"
#include "server/generation_request.h"

namespace braid::server {

// What stands in every part of one answer.
struct ReplyHead {
  std::string id;       // "cmpl-...", "chatcmpl-..."
  int64_t created = 0;  // Unix time, seconds
  std::string model;    // as asked
};

struct Usage {
  int64_t prompt_tokens = 0;  // each prompt once, however many samples it has
  int64_t cached_tokens = 0;
  int64_t completion_tokens = 0;
};

// How a route writes what the engine gives: the events of each choice as chunks of a stream, or all
// of them as one answer. Nothing here waits or knows of sockets.
class ReplyFormat {
 public:
  virtual ~ReplyFormat() = default;

  // One event as server-sent events, "data: ...\n\n" each.
  virtual std::string chunk(int32_t choice, const Event& event) = 0;
  // What comes after the last one: usage where asked for, and the end mark.
  virtual std::string end_of_stream() = 0;
  // The whole answer; one sum of events for each choice.
  virtual Json whole(std::vector<Event> choices) = 0;

  // Of what went through chunk() or whole() so far.
  Usage usage() const;

 protected:
  explicit ReplyFormat(const GenerationRequest& request);

  // Every format calls it for each event, in order.
  void count(int32_t choice, const Event& event);

  // For chunks that show it; else it is not worth adding up.
  Usage usage_so_far() const { return request_.include_usage_always ? usage() : Usage{}; }

  const GenerationRequest& request_;
  std::vector<int32_t> prompt_of_choice_;

 private:
  std::vector<Usage> usage_of_choice_;
};

// The request, and the model for what tokens read as, must outlive the format.
std::unique_ptr<ReplyFormat> completion_format(const GenerationRequest& request, ReplyHead head,
                                               const TextModel& model);
std::unique_ptr<ReplyFormat> chat_format(const GenerationRequest& request, ReplyHead head,
                                         const TextModel& model);
std::unique_ptr<ReplyFormat> generate_format(const GenerationRequest& request, ReplyHead head,
                                             const TextModel& model);

// Shared by the formats.
std::string sse(std::string_view json_line);  // one server-sent event
inline constexpr std::string_view kEndOfStream = "data: [DONE]\n\n";
Json usage_json(const Usage& usage);
std::string_view finish_name(FinishReason reason);  // "stop", "length", "abort"
// A log probability that JSON can hold.
double json_logprob(float logprob);
// vLLM's "stop_reason": the stop string or stop token that ended the reply, else null.
Json stop_reason(const Event& event, const SamplingParams& sampling);
// Text of an event as the client wants it: with the stop string, or none at all.
std::string shown_text(const Event& event, const GenerationRequest& request);
// vLLM's "prompt_logprobs": a list with null for the first token, then {"id": {...}} each.
class TokenNames;
Json prompt_logprobs_json(const Event& event, TokenNames& names);

}  // namespace braid::server
