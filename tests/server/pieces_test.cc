// The small parts of the server: keys, routes, names, forms, log lines, metrics.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/json.h"
#include "server/adapter_choice.h"
#include "server/auth.h"
#include "server/base64.h"
#include "server/http/router.h"
#include "server/metrics.h"
#include "server/multipart.h"
#include "server/request_log.h"
#include "tests/server/null_backend.h"

namespace braid::server {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(Auth, WithoutKeysEverythingIsOpen) {
  const Auth auth({}, "");
  EXPECT_TRUE(auth.may_use(Access::kApi, ""));
  EXPECT_TRUE(auth.may_use(Access::kControl, ""));
}

TEST(Auth, AnApiKeyOpensControlOnlyWithoutAnAdminKey) {
  const Auth one({"a", "b"}, "");
  EXPECT_TRUE(one.may_use(Access::kControl, "Bearer b"));
  EXPECT_FALSE(one.may_use(Access::kControl, "Bearer c"));
  const Auth two({"a"}, "boss");
  EXPECT_TRUE(two.may_use(Access::kApi, "bearer  a"));
  EXPECT_FALSE(two.may_use(Access::kControl, "Bearer a"));
  EXPECT_TRUE(two.may_use(Access::kControl, "Bearer boss"));
  EXPECT_TRUE(two.may_use(Access::kApi, "Bearer boss"));
  const Auth three({}, "boss");
  EXPECT_TRUE(three.may_use(Access::kApi, ""));
  EXPECT_FALSE(three.may_use(Access::kControl, ""));
}

TEST(Auth, WantsTheWholeKey) {
  const Auth auth({"abc"}, "");
  for (const char* header : {"", "Bearer", "Bearer ", "Bearer ab", "Bearer abcd", "Bearer abcabc",
                             "Basic abc", "abc", "Bearer abc "})
    EXPECT_FALSE(auth.may_use(Access::kApi, header)) << header;
}

TEST(Router, FindsRoutesByMethodAndPath) {
  Router router;
  const auto none = [](const HttpRequest&) { return HttpResponse{}; };
  router.add("GET", "/", Access::kOpen, none);
  router.add("GET", "/a", Access::kOpen, none);
  router.add("POST", "/a", Access::kOpen, none);
  router.add("PUT", "/a/", Access::kOpen, none);
  EXPECT_NE(router.find("GET", "/").route, nullptr);
  EXPECT_EQ(router.find("GET", "/b").route, nullptr);
  EXPECT_EQ(router.find("HEAD", "/a").route->method, "GET");
  EXPECT_EQ(router.find("DELETE", "/a").allowed, "GET, POST");
  EXPECT_EQ(router.find("PUT", "/a/b/c").tail, "b/c");
  EXPECT_EQ(router.find("PUT", "/a/").route, nullptr);
}

TEST(PercentDecode, RefusesBrokenOnes) {
  std::string out;
  EXPECT_TRUE(percent_decode("/a%20%c3%A4", out));
  EXPECT_EQ(out, "/a \xc3\xa4");
  for (const char* text : {"%", "%a", "%zz", "a%0", "%00"}) EXPECT_FALSE(percent_decode(text, out));
}

TEST(AdapterName, ComesFromModelOrLoraPath) {
  const std::vector<std::string> base = {"org/base", "alias"};
  const auto name = [&](const char* model, std::optional<std::string> lora = {}) {
    return adapter_name(model, lora, base).value_or("REFUSED");
  };
  for (const char* model : {"", "default", "org/base", "alias"})
    EXPECT_EQ(name(model), "") << model;
  EXPECT_EQ(name("sql"), "sql");
  EXPECT_EQ(name("org/base:sql"), "sql");
  EXPECT_EQ(name("alias:a:b"), "a:b");
  EXPECT_EQ(name("other:sql"), "other:sql");
  EXPECT_EQ(name("alias", "sql"), "sql");
  EXPECT_EQ(name("sql", "sql"), "sql");
  EXPECT_EQ(name("sql", ""), "sql");
  EXPECT_EQ(name("sql", "other"), "REFUSED");
}

TEST(SplitForm, GivesTheParts) {
  const std::string body =
      "--B\r\nContent-Disposition: form-data; name=\"a\"; filename=\"x y\"\r\n\r\none\r\ntwo\r\n"
      "--B\r\ncontent-disposition: form-data; name=b\r\nX: y\r\n\r\n\r\n--B--\r\n";
  const auto parts = split_form("multipart/form-data; boundary=\"B\"", body).value();
  ASSERT_EQ(parts.size(), 2u);
  EXPECT_EQ(parts[0].name, "a");
  EXPECT_EQ(parts[0].file_name, "x y");
  EXPECT_EQ(parts[0].data, "one\r\ntwo");
  EXPECT_EQ(parts[1].name, "b");
  EXPECT_EQ(parts[1].data, "");
}

TEST(SplitForm, RefusesEveryCut) {
  const std::string body = "--B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\none\r\n--B--";
  ASSERT_TRUE(split_form("multipart/form-data; boundary=B", body).has_value());
  for (size_t size = 0; size < body.size(); ++size)
    EXPECT_FALSE(split_form("multipart/form-data; boundary=B", body.substr(0, size)).has_value())
        << size;
  EXPECT_FALSE(split_form("multipart/form-data", body).has_value());
  EXPECT_FALSE(split_form("multipart/form-data; boundary=", body).has_value());
  EXPECT_FALSE(split_form("application/json; boundary=B", body).has_value());
}

TEST(Base64, DecodesAndRefuses) {
  std::string out;
  EXPECT_TRUE(base64_decode("", out));
  EXPECT_TRUE(base64_decode("TWFu/+8=", out));
  EXPECT_EQ(out, "Man\xff\xef");
  EXPECT_TRUE(base64_decode("TQ==", out));
  EXPECT_EQ(out, "M");
  for (const char* text : {"T", "TQ=", "TQ===", "====", "T=Q=", "TW u", "TWF-"})
    EXPECT_FALSE(base64_decode(text, out)) << text;
}

TEST(LogLine, CannotBeForged) {
  const ExchangeRecord record = {.request_id = "r",
                                 .method = "POST",
                                 .route = "/v1/x",
                                 .status = 404,
                                 .model = "a\n2030-01-01 forged",
                                 .error = "no \"model\""};
  const std::string text = log_line(record, LogFormat::kText);
  EXPECT_EQ(text.find('\n'), text.npos);
  EXPECT_THAT(text, HasSubstr(R"(model="a\n2030-01-01 forged")"));
  const Json json = Json::parse(log_line(record, LogFormat::kJson));
  EXPECT_EQ(json["status"], 404);
  EXPECT_EQ(json["error"], "no \"model\"");
}

TEST(Metrics, SayWhatTheGpuAndItsSlotsDid) {
  struct Busy : test::NullBackend {
    Busy() : NullBackend(std::chrono::microseconds(1000)) {}
    EngineStats stats() const override {
      return {.device_seconds = 1.5,
              .adapter_swaps = 7,
              .adapter_slot_evictions = 3,
              .adapter_copied_bytes = int64_t{5} << 30};
    }
  } const backend;
  const std::string text = Metrics({.model_names = {"m"}}, backend).text(0);
  for (const char* sample :
       {"braid_device_seconds_total 1.5\n", "braid_adapter_swaps_total 7\n",
        "braid_adapter_slot_evictions_total 3\n", "braid_adapter_copied_bytes_total 5368709120\n"})
    EXPECT_THAT(text, HasSubstr(sample));
}

TEST(Metrics, CountEventsOfAdaptersAndBoundTheirNumber) {
  test::NullBackend backend(std::chrono::microseconds(1000), {"sql"});
  ServerConfig config = {.model_names = {"m"}, .vllm_metrics = true, .max_metric_adapters = 3};
  Metrics metrics(config, backend);
  const auto start = std::chrono::steady_clock::now();
  Event event = {.tokens = {1}, .prompt_tokens = 5, .completion_tokens = 1};
  event.times = {.queued = start,
                 .started = start,
                 .first_token = start + std::chrono::milliseconds(30),
                 .last_token = start + std::chrono::milliseconds(30)};
  metrics.count(event, "sql", {});
  Event next = event;
  next.completion_tokens = 2;
  next.times.last_token = start + std::chrono::milliseconds(45);
  next.finished = true;
  next.reason = FinishReason::kLength;
  metrics.count(next, "sql", event.times.last_token);
  for (const char* name : {"a", "b", "c", "d"}) metrics.count(event, name, {});
  metrics.count_abandoned("sql");
  const std::string text = metrics.text(0);
  EXPECT_THAT(text, HasSubstr("braid_generated_tokens_total{adapter=\"sql\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("braid_first_token_seconds_bucket{adapter=\"sql\",le=\"0.02\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("braid_first_token_seconds_bucket{adapter=\"sql\",le=\"0.04\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("braid_inter_token_seconds_bucket{adapter=\"sql\",le=\"0.02\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("braid_requests_total{adapter=\"sql\",reason=\"length\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("braid_requests_total{adapter=\"sql\",reason=\"cancelled\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("braid_generated_tokens_total{adapter=\"other\"}"));
  EXPECT_THAT(text, Not(HasSubstr("adapter=\"d\"")));
  EXPECT_THAT(text, HasSubstr("vllm:lora_requests_info{max_lora=\"0\",running_lora_adapters=\"\""));
  EXPECT_THAT(text, Not(HasSubstr("sglang:")));
}

}  // namespace
}  // namespace braid::server
