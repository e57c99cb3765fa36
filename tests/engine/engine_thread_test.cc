#include "engine/engine_thread.h"

#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <semaphore>
#include <stdexcept>

#include "base/check.h"
#include "tests/engine/toy_engine.h"

namespace braid::test {
namespace {

using std::chrono_literals::operator""ms;

// Holds the engine's thread at the start of each step until it is let go.
class Gate {
 public:
  std::function<void(const ForwardBatch&)> hook() {
    return [this](const ForwardBatch&) {
      if (is_open_) return;
      entered_.release();
      leave_.acquire();
    };
  }
  void wait_for_step() { entered_.acquire(); }
  void let_one_step() { leave_.release(); }
  void open() {
    is_open_ = true;
    leave_.release();
  }

 private:
  std::atomic<bool> is_open_ = false;
  std::counting_semaphore<> entered_{0};
  std::counting_semaphore<> leave_{0};
};

Request greedy(std::vector<int32_t> prompt, int32_t max_tokens) {
  return {.prompt = std::move(prompt),
          .sampling = {.temperature = 0, .max_tokens = max_tokens, .ignore_eos = true}};
}

TEST(EngineThread, CountsWhatItDid) {
  const auto engine = make_toy_engine({});
  const auto replies = run_all(*engine, {{greedy({1, 2, 3}, 5), nullptr}});
  EXPECT_EQ(replies[0].tokens.size(), 5u);
  EXPECT_EQ(replies[0].num_events, 5);
  EXPECT_EQ(replies[0].num_last_events, 1);
  EXPECT_EQ(replies[0].reason, FinishReason::kLength);
  const auto stats = engine->stats();
  EXPECT_EQ(stats.steps, 5);
  EXPECT_GT(stats.step_seconds, 0.0);
  EXPECT_EQ(stats.last_step_tokens, 1);
  EXPECT_EQ(stats.prompt_tokens, 3);
  EXPECT_EQ(stats.generated_tokens, 5);
  EXPECT_EQ(stats.kv_blocks_used, 0);
  EXPECT_EQ(stats.kv_blocks_total, 256);
}

TEST(EngineThread, NeverExceedsTheTokensOfAStep) {
  std::atomic<int32_t> largest = 0;
  const auto engine = make_toy_engine(
      {.max_running = 3, .max_batch_tokens = 5, .on_forward = [&](const ForwardBatch& batch) {
         largest = std::max(largest.load(), batch.num_tokens());
       }});
  std::vector<ToyRequest> requests(8, {greedy(std::vector<int32_t>(17, 4), 6), nullptr});
  run_all(*engine, requests);
  EXPECT_EQ(largest, 5);
}

TEST(EngineThread, PassesNoAdaptersForABaseOnlyStep) {
  std::atomic<bool> has_adapter = false;
  const auto engine = make_toy_engine({.on_forward = [&](const ForwardBatch& batch) {
    for (const int32_t slot : batch.adapter_slot_of_token) has_adapter = has_adapter || slot >= 0;
  }});
  run_all(*engine, {{greedy({1}, 2), nullptr}});
  EXPECT_FALSE(has_adapter);
  run_all(*engine, {{greedy({1}, 2), toy_adapter(3)}});
  EXPECT_TRUE(has_adapter);
}

TEST(EngineThread, StopsAtEndTokens) {
  const Request free = greedy({7, 8}, 20);
  const auto whole = run_alone({free, nullptr});
  const int32_t end = whole.tokens[4];
  const auto first = std::find(whole.tokens.begin(), whole.tokens.end(), end);
  const std::vector<int32_t> expected(whole.tokens.begin(), first + 1);

  Request request = free;
  request.sampling.stop_token_ids = {end};
  const auto stopped = run_alone({request, nullptr});
  EXPECT_EQ(stopped.tokens, expected);
  EXPECT_EQ(stopped.reason, FinishReason::kStop);
  EXPECT_EQ(stopped.matched_stop, "");
  // Part of the tokens, not of the text.
  auto text = make_toy_text();
  std::string expected_text;
  for (size_t i = 0; i + 1 < expected.size(); ++i) expected_text += text->push(expected[i]);
  EXPECT_EQ(stopped.text, expected_text + text->flush());

  request.sampling.stop_token_ids = {};
  request.sampling.ignore_eos = false;
  EXPECT_EQ(run_alone({request, nullptr}, {.eos_tokens = {end}}).tokens, expected);
  request.sampling.ignore_eos = true;
  EXPECT_EQ(run_alone({request, nullptr}, {.eos_tokens = {end}}).tokens, whole.tokens);
}

TEST(EngineThread, StopsAtStopStrings) {
  Request request = greedy({7, 8, 9}, 40);
  const auto whole = run_alone({request, nullptr});
  request.sampling.stop = {"~", whole.text.substr(9, 2)};
  const auto stopped = run_alone({request, nullptr});
  EXPECT_EQ(stopped.reason, FinishReason::kStop);
  EXPECT_EQ(stopped.matched_stop, request.sampling.stop[1]);
  EXPECT_EQ(stopped.text, whole.text.substr(0, whole.text.find(request.sampling.stop[1])));
  EXPECT_LT(stopped.tokens.size(), whole.tokens.size());
}

TEST(EngineThread, GivesAllTextWhenNoStopStringCame) {
  Request request = greedy({7, 8, 9}, 40);
  const auto whole = run_alone({request, nullptr});
  request.sampling.stop = {whole.text + "~"};  // held back from the first character on
  const auto held = run_alone({request, nullptr});
  EXPECT_EQ(held.text, whole.text);
  EXPECT_EQ(held.reason, FinishReason::kLength);
}

TEST(EngineThread, GivesLogprobsOfPromptAndReply) {
  Request request = greedy(std::vector<int32_t>(150, 3), 4);  // more rows than one step computes
  request.sampling.logprobs = 2;
  request.sampling.prompt_logprobs = 1;
  const auto engine = make_toy_engine({});
  for (int round = 0; round < 2; ++round) {
    const auto reply = run_all(*engine, {{request, nullptr}}).front();
    ASSERT_EQ(reply.prompt_logprobs.size(), 149u);
    ASSERT_EQ(reply.logprobs.size(), 4u);
    EXPECT_EQ(reply.cached_tokens, 0);
    for (const auto& entry : reply.prompt_logprobs) {
      EXPECT_EQ(entry.token, 3);
      EXPECT_EQ(entry.top.size(), 1u);
      EXPECT_LE(entry.logprob, entry.top[0].second);
    }
    for (size_t i = 0; i < 4; ++i) {
      EXPECT_EQ(reply.logprobs[i].token, reply.tokens[i]);
      EXPECT_EQ(reply.logprobs[i].rank, 1);
      EXPECT_EQ(reply.logprobs[i].top[0].second, reply.logprobs[i].logprob);
    }
  }
}

TEST(EngineThread, PromptLogprobsPredictTheNextToken) {
  // Scoring a reply as a prompt gives the log probabilities it had when it was generated.
  Request request = greedy({1, 2, 3}, 6);
  request.sampling.logprobs = 0;
  const auto reply = run_alone({request, nullptr});
  Request scored = greedy({1, 2, 3}, 1);
  scored.prompt.insert(scored.prompt.end(), reply.tokens.begin(), reply.tokens.end());
  scored.sampling.prompt_logprobs = 0;
  const auto scores = run_alone({scored, nullptr});
  ASSERT_EQ(scores.prompt_logprobs.size(), 8u);
  for (size_t i = 0; i < 6; ++i)
    EXPECT_EQ(scores.prompt_logprobs[2 + i].logprob, reply.logprobs[i].logprob);
}

TEST(EngineThread, TakesPromptsFromTheCache) {
  const auto engine = make_toy_engine({});
  std::vector<int32_t> prompt(12, 1);
  EXPECT_EQ(run_all(*engine, {{greedy(prompt, 2), nullptr}})[0].cached_tokens, 0);
  EXPECT_EQ(run_all(*engine, {{greedy(prompt, 2), nullptr}})[0].cached_tokens, 8);
  prompt.push_back(2);  // now the third block is not the last
  EXPECT_EQ(run_all(*engine, {{greedy(prompt, 2), nullptr}})[0].cached_tokens, 12);
  EXPECT_EQ(run_all(*engine, {{greedy(prompt, 2), toy_adapter(1)}})[0].cached_tokens, 0);
  EXPECT_EQ(run_all(*engine, {{greedy(prompt, 2), toy_adapter(2)}})[0].cached_tokens, 0);
  EXPECT_EQ(run_all(*engine, {{greedy(prompt, 2), toy_adapter(1)}})[0].cached_tokens, 12);
}

TEST(EngineThread, IgnoresEndTokensOutsideTheVocabulary) {
  Request request = greedy({1}, 6);
  request.sampling.ignore_eos = false;
  request.sampling.min_tokens = 3;
  const auto reply = run_alone({request, nullptr}, {.eos_tokens = {-1, 97, 1 << 30}});
  EXPECT_EQ(reply.tokens.size(), 6u);
}

TEST(EngineThread, RefusesWhatCanNeverRun) {
  const auto engine = make_toy_engine({.num_blocks = 4, .has_text = false});
  const auto refused = [&](Request request) {
    const auto id = engine->submit(std::move(request), {}, [](const TokenEvent&) { FAIL(); });
    return id ? std::string("accepted") : id.error().message;
  };
  EXPECT_NE(refused(greedy({}, 1)).find("empty"), std::string::npos);
  EXPECT_NE(refused(greedy({1, 97}, 1)).find("token 1 of the prompt is 97"), std::string::npos);
  EXPECT_NE(refused(greedy({-1}, 1)).find("-1"), std::string::npos);
  EXPECT_NE(refused(greedy({1}, 16)).find("context is 16 tokens"), std::string::npos);
  EXPECT_NE(refused(greedy({1}, 2147483647)).find("context is 16"), std::string::npos);
  EXPECT_NE(refused(greedy({1}, 0)).find("max_tokens"), std::string::npos);
  Request stops = greedy({1}, 1);
  stops.sampling.stop = {"x"};
  EXPECT_NE(refused(stops).find("tokenizer"), std::string::npos);
  EXPECT_FALSE(engine->submit(greedy({1}, 1), {}, {}).has_value());
  const auto fits = run_all(*engine, {{greedy({1}, 15), nullptr}});
  EXPECT_EQ(fits[0].tokens.size(), 15u);
}

TEST(EngineThread, RefusesWhenTheQueueIsFull) {
  Gate gate;
  Replies replies;
  auto engine =
      make_toy_engine({.max_running = 1, .max_queued_requests = 2, .on_forward = gate.hook()});
  ASSERT_TRUE(engine->submit(greedy({1}, 2), {}, replies.add().first));
  gate.wait_for_step();
  // The first may still count as queued while its first step runs.
  int32_t num_accepted = 0;
  Result<RequestId> last;
  for (int i = 0; i < 4; ++i) {
    last = engine->submit(greedy({1}, 2), {}, replies.add().first);
    num_accepted += last.has_value();
  }
  EXPECT_LE(num_accepted, 2);
  EXPECT_GE(num_accepted, 1);
  ASSERT_FALSE(last.has_value());
  EXPECT_EQ(last.error().code, ErrorCode::kResourceExhausted);
  gate.open();
  engine->wait_until_idle();
  EXPECT_TRUE(engine->submit(greedy({1}, 2), {}, replies.add().first));
  engine->wait_until_idle();
}

TEST(EngineThread, CancelsInQueuePrefillAndDecode) {
  Gate gate;
  Replies replies;
  auto engine =
      make_toy_engine({.max_running = 2, .max_batch_tokens = 4, .on_forward = gate.hook()});
  const auto decoding = engine->submit(greedy({1}, 50), {}, replies.add().first);
  const auto prefilling =
      engine->submit(greedy(std::vector<int32_t>(60, 2), 5), {}, replies.add().first);
  const auto queued = engine->submit(greedy({3}, 5), {}, replies.add().first);
  const auto after = engine->submit(greedy({4}, 5), {}, replies.add().first);
  ASSERT_TRUE(decoding && prefilling && queued && after);
  for (int step = 0; step < 4; ++step) {
    gate.wait_for_step();
    gate.let_one_step();
  }
  gate.wait_for_step();
  for (const auto id : {*decoding, *prefilling, *queued, RequestId{12345}}) engine->cancel(id);
  engine->cancel(*decoding);
  gate.open();
  engine->wait_until_idle();
  EXPECT_GE(replies.at(0).tokens.size(), 3u);
  EXPECT_EQ(replies.at(1).tokens.size(), 0u);
  EXPECT_EQ(replies.at(2).tokens.size(), 0u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(replies.at(i).reason, FinishReason::kCancelled);
    EXPECT_EQ(replies.at(i).num_last_events, 1);
  }
  EXPECT_EQ(replies.at(3).reason, FinishReason::kLength);
  EXPECT_EQ(engine->stats().kv_blocks_used, 0);
}

TEST(EngineThread, SendsLastEventsWhenItIsDestroyed) {
  Gate gate;
  Replies replies;
  auto engine = make_toy_engine({.max_running = 2, .on_forward = gate.hook()});
  for (int i = 0; i < 6; ++i)
    ASSERT_TRUE(engine->submit(greedy({i}, 400), {}, replies.add().first));
  gate.wait_for_step();
  gate.open();
  engine.reset();
  for (size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(replies.at(i).reason, FinishReason::kCancelled);
    EXPECT_EQ(replies.at(i).num_last_events, 1);
  }
}

TEST(EngineThread, CallbacksMaySubmitAndCancel) {
  Replies replies;
  auto engine = make_toy_engine({});
  const auto outer = replies.add().first;
  const auto inner = replies.add();
  ASSERT_TRUE(engine->submit(greedy({1}, 30), {}, [&](const TokenEvent& event) {
    outer(event);
    if (event.completion_tokens == 2 && !event.finished) {
      ASSERT_TRUE(engine->submit(greedy({2}, 3), {}, inner.first));
      engine->cancel(event.request);
    }
  }));
  engine->wait_until_idle();
  EXPECT_EQ(replies.at(0).reason, FinishReason::kCancelled);
  EXPECT_EQ(replies.at(0).tokens.size(), 2u);
  EXPECT_EQ(replies.at(1).tokens.size(), 3u);
}

TEST(EngineThread, SurvivesACallbackThatThrows) {
  auto engine = make_toy_engine({});
  Replies replies;
  std::atomic<int> num_last = 0;
  ASSERT_TRUE(engine->submit(greedy({1}, 30), {}, [&](const TokenEvent& event) {
    num_last += event.finished;
    throw std::runtime_error("callback");
  }));
  ASSERT_TRUE(engine->submit(greedy({1}, 30), {}, replies.add().first));
  engine->wait_until_idle();
  EXPECT_EQ(num_last, 1);
  EXPECT_EQ(replies.at(0).tokens.size(), 30u);
}

TEST(EngineThread, EndsRunningRequestsWhenAStepFails) {
  Gate gate;
  std::atomic<bool> breaks = false;
  auto engine = make_toy_engine(
      {.max_running = 2, .on_forward = [&, hold = gate.hook()](const ForwardBatch& batch) {
         hold(batch);
         if (breaks.exchange(false)) throw InternalError("a broken step");
       }});
  std::vector<ToyRequest> requests(4, {greedy({1, 2, 3, 4, 5}, 6), nullptr});
  requests[1].adapter = toy_adapter(1);
  requests[2].adapter = toy_adapter(1);
  Replies replies;
  for (const auto& [request, adapter] : requests) {
    ASSERT_TRUE(engine->submit(request, adapter, replies.add().first));
  }
  gate.wait_for_step();
  gate.let_one_step();
  gate.wait_for_step();  // with the first two requests, whoever came in time for the step before
  breaks = true;
  gate.open();
  engine->wait_until_idle();
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(replies.at(i).reason, FinishReason::kError);
    EXPECT_EQ(replies.at(i).error, "a broken step");
    EXPECT_EQ(replies.at(i).num_last_events, 1);
  }
  for (size_t i = 2; i < 4; ++i) {
    EXPECT_EQ(why_different(replies.at(i), run_alone(requests[i])), "") << i;
  }
  EXPECT_EQ(engine->stats().kv_blocks_used, 0);
  EXPECT_EQ(run_all(*engine, requests)[0].reason, FinishReason::kLength);
}

TEST(EngineThread, EndsOnlyTheRequestWithBrokenLogits) {
  auto engine = make_toy_engine({.poisoned_token = 50});
  Request scored = greedy({1, 50, 3}, 2);
  scored.sampling.prompt_logprobs = 1;
  const auto replies = run_all(
      *engine, {{greedy({1, 50}, 5), nullptr}, {scored, nullptr}, {greedy({1, 2}, 1), nullptr}});
  EXPECT_EQ(replies[0].reason, FinishReason::kError);
  EXPECT_NE(replies[0].error.find("NaN"), std::string::npos);
  EXPECT_EQ(replies[1].reason, FinishReason::kError);
  EXPECT_EQ(replies[1].num_last_events, 1);
  EXPECT_EQ(replies[2].reason, FinishReason::kLength);
}

TEST(EngineThread, LetsGoOfRemovedAdapters) {
  auto engine = make_toy_engine({});
  auto adapter = toy_adapter(9);
  const std::weak_ptr<const Adapter> watch = adapter;
  run_all(*engine, {{greedy({1}, 3), adapter}});
  adapter.reset();
  EXPECT_FALSE(watch.expired());  // its slot keeps it
  engine->adapters_changed();
  for (int i = 0; i < 1000 && !watch.expired(); ++i) std::this_thread::sleep_for(1ms);
  EXPECT_TRUE(watch.expired());
}

TEST(EngineThread, DoesNotStarveAnAdapterWithoutASlot) {
  // One slot; adapter 1 keeps it busy with ever new requests, adapter 2 has one.
  auto engine = make_toy_engine({.max_running = 4, .max_adapters = 1});
  std::atomic<bool> second_done = false;
  std::atomic<int> num_first = 0;
  const auto first = toy_adapter(1);
  std::function<void(const TokenEvent&)> again = [&](const TokenEvent& event) {
    if (!event.finished || second_done || ++num_first > 2000) return;
    ASSERT_TRUE(engine->submit(greedy({1}, 5 + num_first % 7), first, again));
  };
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(engine->submit(greedy({1}, 5 + i), first, again));
  ASSERT_TRUE(engine->submit(greedy({2}, 3), toy_adapter(2),
                             [&](const TokenEvent& event) { second_done = event.finished; }));
  engine->wait_until_idle();
  EXPECT_TRUE(second_done);
  EXPECT_LT(num_first, 200);
}

// Random arrivals, cancels, adapters that come and go, a cache that is too small, from several
// threads: every request gets one last event, finished ones what they give alone.
TEST(EngineThread, SurvivesRandomTraffic) {
  ToyOptions options = {.max_running = 6,
                        .max_batch_tokens = 11,
                        .block_size = 4,
                        .num_blocks = 24,
                        .max_adapters = 2,
                        .max_queued_requests = 20};
  auto engine = make_toy_engine(options);
  constexpr int kThreads = 3;
  constexpr int kRequests = 120;
  std::vector<Replies> replies(kThreads);
  std::vector<std::vector<std::pair<size_t, ToyRequest>>> accepted(kThreads);
  std::vector<std::thread> threads;
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      std::mt19937 random(thread);
      std::vector<RequestId> ids;
      for (int i = 0; i < kRequests; ++i) {
        ToyRequest r;
        const auto length = 1 + random() % 30;
        for (uint32_t t = 0; t < length; ++t)
          r.request.prompt.push_back(t < 12 ? static_cast<int32_t>(t)
                                            : static_cast<int32_t>(random() % 97));
        r.request.sampling = {.max_tokens = 1 + static_cast<int32_t>(random() % 30),
                              .seed = random(),
                              .stop = {"ab"},
                              .logprobs = 1};
        if (const uint32_t number = random() % 5; number > 0) r.adapter = toy_adapter(number);
        auto [on_tokens, index] = replies[thread].add();
        const auto id = engine->submit(r.request, r.adapter, on_tokens);
        if (id) {
          accepted[thread].emplace_back(index, r);
          ids.push_back(*id);
        } else {
          std::this_thread::sleep_for(1ms);
        }
        if (random() % 4 == 0 && !ids.empty()) engine->cancel(ids[random() % ids.size()]);
        if (random() % 8 == 0) engine->adapters_changed();
        if (random() % 8 == 0) engine->stats();
      }
    });
  }
  for (auto& thread : threads) thread.join();
  engine->wait_until_idle();
  const auto stats = engine->stats();
  EXPECT_EQ(stats.running + stats.queued + stats.kv_blocks_used, 0);
  int num_compared = 0;
  for (int thread = 0; thread < kThreads; ++thread) {
    for (const auto& [index, request] : accepted[thread]) {
      const auto reply = replies[thread].at(index);
      ASSERT_EQ(reply.num_last_events, 1);
      ASSERT_NE(reply.reason, FinishReason::kError) << reply.error;
      if (reply.reason == FinishReason::kCancelled || index % 4 != 0) continue;
      ASSERT_EQ(why_different(reply, run_alone(request, options)), "");
      ++num_compared;
    }
  }
  EXPECT_GT(num_compared, 10);
}

}  // namespace
}  // namespace braid::test
