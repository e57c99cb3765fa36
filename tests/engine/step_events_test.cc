// on_step: all events of a step in one call, with what they point to.

#include "engine/step_events.h"

#include <gtest/gtest.h>

#include <map>

#include "tests/engine/toy_engine.h"

namespace braid::test {
namespace {

struct Told {
  std::vector<int32_t> tokens;
  std::string text;
  int32_t num_logprobs = 0;
  int32_t num_last_events = 0;
  RequestTimes times;
};

TEST(StepEvents, ComeOnceAStepAndEqualThoseOfCallbacks) {
  std::map<uint64_t, Told> told;
  std::vector<size_t> calls;
  ToyOptions options;
  options.on_step = [&](std::span<const TokenEvent> events) {
    calls.push_back(events.size());
    for (const TokenEvent& event : events) {
      Told& t = told[event.tag];
      t.tokens.insert(t.tokens.end(), event.tokens.begin(), event.tokens.end());
      t.text += event.text;
      t.num_logprobs += static_cast<int32_t>(event.logprobs.size());
      t.num_last_events += event.finished;
      t.times = event.times;
    }
  };
  std::vector<Request> requests;
  for (uint64_t tag = 0; tag < 5; ++tag) {
    requests.push_back({.prompt = {static_cast<int32_t>(tag), 2, 3},
                        .sampling = {.max_tokens = 6, .seed = tag, .logprobs = 2},
                        .tag = tag});
  }
  const auto engine = make_toy_engine(options);
  for (const Request& request : requests) ASSERT_TRUE(engine->submit(request, {}, {}));
  engine->wait_until_idle();  // every event is delivered by then
  EXPECT_LE(calls.size(), static_cast<size_t>(engine->stats().steps));
  for (uint64_t tag = 0; tag < 5; ++tag) {
    const Reply alone = run_alone({requests[tag], nullptr});
    EXPECT_EQ(told[tag].tokens, alone.tokens);
    EXPECT_EQ(told[tag].text, alone.text);
    EXPECT_EQ(told[tag].num_logprobs, 6);
    EXPECT_EQ(told[tag].num_last_events, 1);
    const RequestTimes& times = told[tag].times;
    EXPECT_LE(times.queued, times.started);
    EXPECT_LT(times.started, times.first_token);
    EXPECT_LT(times.first_token, times.last_token);
  }
}

TEST(StepEvents, AreWantedOrACallback) {
  const auto engine = make_toy_engine({});
  EXPECT_EQ(engine->submit({.prompt = {1}}, {}, {}).error().message,
            "the request has no on_tokens, the engine no on_step");
}

TEST(StepEvents, SurviveAThrowingReceiver) {
  int num_calls = 0;
  StepEvents events;
  const std::string text = "gone";
  {
    const std::string short_lived = text;
    events.add({.text = short_lived, .finished = true});
  }
  events.deliver([&](std::span<const TokenEvent> told) {
    ++num_calls;
    EXPECT_EQ(told[0].text, text);
    throw std::runtime_error("no");
  });
  events.deliver([&](std::span<const TokenEvent>) { ++num_calls; });  // nothing left
  EXPECT_EQ(num_calls, 1);
}

}  // namespace
}  // namespace braid::test
