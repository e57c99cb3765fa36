#include "server/request_log.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <chrono>
#include <cmath>

#include "base/json.h"
#include "server/json_text.h"

namespace braid::server {
namespace {

// 2025-01-31T12:00:00.123Z
std::string time_now() {
  const auto now = std::chrono::system_clock::now();
  const auto ms =
      std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count() % 1000;
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:03}Z",
                     fmt::gmtime(std::chrono::system_clock::to_time_t(now)), ms);
}

double rounded(double seconds) { return std::round(seconds * 1e6) / 1e6; }

}  // namespace

std::string log_line(const ExchangeRecord& record, LogFormat format) {
  if (format == LogFormat::kNone) return "";
  Json line = {{"time", time_now()},          {"request_id", record.request_id},
               {"method", record.method},     {"route", record.route},
               {"status", record.status},     {"seconds", rounded(record.seconds)},
               {"bytes_in", record.bytes_in}, {"bytes_out", record.bytes_out}};
  if (record.is_client_gone) line["client_gone"] = true;
  if (!record.error.empty()) line["error"] = record.error.substr(0, 1000);
  if (!record.model.empty()) line["model"] = record.model.substr(0, 256);
  if (!record.adapter.empty()) line["adapter"] = record.adapter;
  if (record.prompt_tokens > 0) {
    line["prompt_tokens"] = record.prompt_tokens;
    line["cached_tokens"] = record.cached_tokens;
    line["completion_tokens"] = record.completion_tokens;
    line["finish_reason"] = record.finish_reason;
    if (record.first_token_seconds >= 0)
      line["first_token_seconds"] = rounded(record.first_token_seconds);
  }
  if (format == LogFormat::kJson) return json_text(line);
  // The same as words; strings from clients stay quoted JSON, so that none can forge a line.
  std::string out =
      fmt::format("{} {} {} {} {:.3f}s", line["time"].get<std::string>(), record.status,
                  record.method.substr(0, 20), record.route, record.seconds);
  for (const char* key :
       {"request_id", "model", "adapter", "prompt_tokens", "cached_tokens", "completion_tokens",
        "finish_reason", "first_token_seconds", "error", "client_gone"}) {
    if (line.contains(key)) out += fmt::format(" {}={}", key, json_text(line[key]));
  }
  return out;
}

}  // namespace braid::server
