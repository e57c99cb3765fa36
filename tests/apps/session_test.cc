// Session and InFlight on a real engine: whatever happens, nothing is left running.

#include "apps/session.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <stdexcept>

#include "tests/apps/run_program.h"

namespace braid::apps {
namespace {

std::unique_ptr<Engine> open_engine(int32_t max_queued, int32_t max_batch_size = 4) {
  return std::move(*Engine::open({.model_dir = test::golden_model(),
                                  .num_threads = 1,
                                  .max_batch_size = max_batch_size,
                                  .max_queued_requests = max_queued,
                                  .kv_cache_bytes = size_t{8} << 20}));
}

Answer request(int32_t first_token, int32_t max_tokens) {
  Answer answer = {.prompt = "p"};
  answer.request.prompt = {first_token, 7};
  answer.request.sampling = {.temperature = 0, .max_tokens = max_tokens, .ignore_eos = true};
  return answer;
}

void expect_idle(const Engine& engine) {
  EXPECT_EQ(engine.stats().running, 0);
  EXPECT_EQ(engine.stats().queued, 0);
}

TEST(Session, AnswersInOrderThroughAQueueOfOne) {
  for (const int32_t max_tokens : {1, 3}) {  // with 1 a request may begin and end in one step
    const auto engine = open_engine(1);
    Session session(*engine);
    for (int32_t i = 0; i < 40; ++i) ASSERT_TRUE(session.add(request(i, max_tokens)));
    std::vector<int32_t> order;
    session.run([&](const Answer& answer) {
      order.push_back(answer.request.prompt[0]);
      EXPECT_EQ(answer.error, "");
      EXPECT_EQ(answer.tokens.size(), static_cast<size_t>(max_tokens));
    });
    ASSERT_EQ(order.size(), 40u);
    EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
    EXPECT_EQ(session.num_failed(), 0);
  }
}

TEST(Session, TakesARefusalForAnAnswer) {
  const auto engine = open_engine(16);
  Session session(*engine);
  ASSERT_TRUE(session.add(request(1, 2)));
  Answer refused = request(2, 1000);
  refused.place = "f:2";
  ASSERT_TRUE(session.add(refused));
  ASSERT_TRUE(session.add(request(3, 2)));
  std::vector<std::string> errors;
  session.run([&](const Answer& answer) { errors.push_back(answer.error); });
  ASSERT_EQ(errors.size(), 3u);
  EXPECT_EQ(errors[0], "");
  EXPECT_EQ(errors[1].find("f:2: a prompt of 2 tokens and max_tokens 1000"), 0u);
  EXPECT_EQ(errors[2], "");
  EXPECT_EQ(session.num_failed(), 1);
}

TEST(Session, RefusesAnAdapterThatIsNotThere) {
  const auto engine = open_engine(16);
  Session session(*engine);
  Answer answer = request(1, 1);
  answer.adapter = "sql";
  EXPECT_EQ(session.add(answer).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(session.size(), 0u);
}

TEST(Session, LeavesNothingRunningWhenACallbackThrows) {
  const auto engine = open_engine(64);
  Session session(*engine);
  ASSERT_TRUE(session.add(request(1, 1)));
  for (int32_t i = 2; i < 30; ++i) ASSERT_TRUE(session.add(request(i, 200)));
  EXPECT_THROW(session.run([](const Answer&) { throw std::runtime_error("no more"); }),
               std::runtime_error);
  engine->wait_until_idle();
  expect_idle(*engine);
  EXPECT_LT(engine->stats().generated_tokens, 28 * 200);  // they were cancelled
}

TEST(InFlight, CancelsAndWaitsForWhatRunsAtTheEndOfItsScope) {
  const auto engine = open_engine(64);
  int num_last_events = 0;
  {
    InFlight in_flight(*engine);
    for (int32_t i = 0; i < 10; ++i) {
      ASSERT_TRUE(in_flight.submit(request(i, 200).request, [&](const TokenEvent& event) {
        num_last_events += event.finished ? 1 : 0;
      }));
    }
    EXPECT_FALSE(in_flight.submit(Request{}, [](const TokenEvent&) {}).has_value());
    EXPECT_EQ(in_flight.num_submitted(), 10);
  }
  EXPECT_EQ(num_last_events, 10);
}

TEST(InFlight, CountsRequestsWhoseCallbacksThrow) {
  const auto engine = open_engine(64);
  InFlight in_flight(*engine);
  ASSERT_TRUE(in_flight.submit(request(1, 5).request, [](const TokenEvent&) { throw 1; }));
  in_flight.wait_for_all();
  EXPECT_EQ(in_flight.num_finished(), 1);
}

}  // namespace
}  // namespace braid::apps
