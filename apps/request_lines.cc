#include "apps/request_lines.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "apps/sampling_json.h"
#include "base/json.h"

namespace braid::apps {
namespace {

tl::unexpected<Error> wrong(const char* key, const Json& value, const char* accepted) {
  return fail(ErrorCode::kInvalidArgument, "{} is {}, accepted is {}", key,
              value.dump(-1, ' ', false, Json::error_handler_t::replace).substr(0, 200), accepted);
}

bool is_token_id(const Json& value) {
  return value.is_number_unsigned() &&
         value.get<uint64_t>() <= uint64_t{std::numeric_limits<int32_t>::max()};
}

bool is_prompt(const Json& value) {
  return value.is_string() ||
         (value.is_array() && std::all_of(value.begin(), value.end(), is_token_id));
}

bool is_messages(const Json& value) {
  return value.is_array() && !value.empty() &&
         std::all_of(value.begin(), value.end(), [](const Json& m) { return m.is_object(); });
}

}  // namespace

Result<RequestLine> parse_request_line(std::string_view line, const SamplingParams& defaults) {
  auto json = parse_json(line);
  if (!json) return pass_on(json);
  if (!json->is_object())
    return fail(ErrorCode::kInvalidArgument, "not a JSON object, as {{\"prompt\": \"Hello\"}} is");

  RequestLine request;
  request.template_options = Json::object();
  const std::vector<std::string_view> sampling = sampling_keys();
  for (const auto& [key, value] : json->items()) {
    if (key == "prompt") {
      if (!is_prompt(value)) return wrong("prompt", value, "a string or an array of token ids");
      request.prompt = value;
    } else if (key == "messages") {
      if (!is_messages(value))
        return wrong("messages", value, "an array of objects with \"role\" and \"content\"");
      request.messages = value;
    } else if (key == "adapter") {
      if (!value.is_string() && !value.is_null())
        return wrong("adapter", value, "a name of --lora, \"base\" or null");
      request.adapter = value.is_null() || value == "base" ? "" : value.get<std::string>();
    } else if (key == "chat_template_kwargs") {
      if (!value.is_object()) return wrong("chat_template_kwargs", value, "an object");
      request.template_options.update(value);
    } else if (key == "tools") {
      if (!value.is_array()) return wrong("tools", value, "an array");
      request.template_options["tools"] = value;
    } else if (std::find(sampling.begin(), sampling.end(), key) != sampling.end()) {
      request.sampling[key] = value;
    } else {
      return fail(ErrorCode::kInvalidArgument,
                  "unknown key \"{}\"; known are prompt, messages, adapter, tools, "
                  "chat_template_kwargs, {}",
                  key, fmt::join(sampling, ", "));
    }
  }
  if (request.prompt.is_null() == request.messages.is_null())
    return fail(ErrorCode::kInvalidArgument, "needs either \"prompt\" or \"messages\"");
  if (request.messages.is_null() && !request.template_options.empty())
    return fail(ErrorCode::kInvalidArgument,
                "tools and chat_template_kwargs go with \"messages\", not with \"prompt\"");
  if (auto checked = sampling_from_json(request.sampling, defaults); !checked)
    return pass_on(checked);
  return request;
}

Result<std::vector<RequestLine>> read_request_lines(std::istream& in, const std::string& name,
                                                    const SamplingParams& defaults) {
  std::vector<RequestLine> requests;
  int64_t number = 0;
  for (std::string line; std::getline(in, line);) {
    ++number;
    if (line.find_first_not_of(" \t\r") == line.npos) continue;
    const std::string place = fmt::format("{}:{}", name, number);
    auto request = parse_request_line(line, defaults);
    if (!request) return pass_on(request, place);
    request->place = place;
    requests.push_back(std::move(*request));
  }
  if (in.bad()) return fail(ErrorCode::kIo, "{}: reading failed after line {}", name, number);
  return requests;
}

}  // namespace braid::apps
