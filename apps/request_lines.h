#pragma once

#include <istream>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "braid/engine.h"

namespace braid::apps {

// One request as a line of --input says it, checked as far as that goes without a model.
struct RequestLine {
  std::string place;      // "requests.jsonl:7"
  std::string adapter;    // empty: the base model
  Json prompt;            // a string, an array of token ids, or null when there are messages
  Json messages;          // an array of objects, or null when there is a prompt
  Json template_options;  // what the chat template reads besides: "tools", ...
  Json sampling = Json::object();  // fields of sampling_from_json
};

// Reads a line:
//
//   {"prompt": "Once upon"}  {"prompt": [1, 2, 3]}  {"messages": [{"role": "user", "content":
//   "Hi"}]}
//
// and optionally "adapter" (a name; null and "base" are the base model), "tools" (array) and
// "chat_template_kwargs" (object) beside messages, and every key of sampling_keys(). `defaults` are
// what the sampling values are checked with.
//
// Errors  kCorrupt (not JSON)  kInvalidArgument (a key is unknown, a value of another type or out
//         of range: key, value and what is accepted)
Result<RequestLine> parse_request_line(std::string_view line, const SamplingParams& defaults);

// All lines but blank ones; "NAME:NUMBER" stands in front of each message.
//
// Errors  those of parse_request_line, kIo
Result<std::vector<RequestLine>> read_request_lines(std::istream& in, const std::string& name,
                                                    const SamplingParams& defaults);

}  // namespace braid::apps
